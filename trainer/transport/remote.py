"""Remote edges: a block's packets to and from the neighboring rank, double-buffered.

The receive of the next packet is posted before the current one is worked on, and a send runs under the backward of the
block that made it. Both sides know the plan of the run, so a receive is posted only for a packet that will be sent.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from datetime import timedelta

from trainer.clock import Clock
from trainer.errors import PacketError
from trainer.hostcopy import HostCopy, DeviceEvent
from trainer.packet import OPEN_END, Kind, Layout, Packet, Tag
from trainer.plan import Plan
from trainer.transport.lost import lost_peer
from trainer.transport.slots import ReceiveSlot, SendSlot

RUN_AHEAD = 4
"""On CUDA the host runs at most this many packets ahead of the device. Headers are read that late, so that the device
is not stalled, and a silent neighbor, which NCCL never reports, is noticed by then."""

STOP_LEAD = RUN_AHEAD + 2
"""An early end is decided at least this many steps ahead: no receive may have been posted beyond it. A header passes a
rank before that rank has read it, so the number of ranks does not matter."""


class RemoteSource:
    """The packets that the rank before sends."""

    def __init__(
        self,
        slots: Sequence[ReceiveSlot],
        layout: Layout,
        plan: Plan,
        clock: Clock,
        sender: int,
        timeout: timedelta,
    ) -> None:
        """Posts the first receive; ``slots`` are two, ``sender`` is the rank named in errors, also in that of a packet
        that does not come within ``timeout``."""
        self._slots = [(slot, layout.views(slot.buffer)) for slot in slots]
        self._plan, self._clock, self._sender, self._timeout = plan, clock, sender, timeout
        self._expected = plan.all_tags()
        self._posted: deque[Tag] = deque()
        self._received = 0
        self._headers: deque[tuple[Tag, HostCopy]] = deque()
        self._post(0)

    def packets(self, tags: Iterable[Tag]) -> Iterator[Packet]:
        """The packets that ``tags`` announce, in that order."""
        for tag in tags:
            yield self._take(tag)

    def _take(self, tag: Tag) -> Packet:
        due = self._posted.popleft()
        if tag != due:
            raise PacketError(f"the block asks for {tag} where {due} comes next from rank {self._sender}")
        slot, fields = self._slots[self._received % len(self._slots)]
        with self._clock.waiting(), lost_peer(self._sender, f"packet {tag.step}"):
            slot.wait()
        self._received += 1
        self._headers.append((tag, HostCopy(fields["header"])))
        self._read_headers(RUN_AHEAD)
        self._post(self._received)
        if not self._posted:
            self._read_headers(0)  # no packet follows that could make it read the last ones
        return Packet(tag, fields)

    def _post(self, number: int) -> None:
        expected = next(self._expected, None)
        if expected is not None:
            self._slots[number % len(self._slots)][0].post()
            self._posted.append(expected)

    def _read_headers(self, lag: int) -> None:
        """Check the headers that have arrived, and all but the last ``lag`` in any case; learn from them where the run
        ends."""
        while self._headers and (self._headers[0][1].ready() or len(self._headers) > lag):
            tag, copy = self._headers.popleft()
            with lost_peer(self._sender, f"packet {tag.step}"):
                kind, step, count, last_step, evaluate, *_ = copy.wait(self._timeout).tolist()
            if (kind, step, count) != (tag.kind, tag.step, tag.count):
                raise PacketError(
                    f"rank {self._sender} sent the {Kind(kind).name.lower()} packet {step} with {count} images where "
                    f"the {tag.kind.name.lower()} packet {tag.step} with {tag.count} was due"
                )
            if last_step != OPEN_END:
                self._plan.stop(last_step, bool(evaluate))


class RemoteSink:
    """The send queue towards the rank after: a ring of slots, each reused only when its earlier send has completed,
    which bounds the memory and makes a fast rank wait for a slow one."""

    def __init__(
        self, slots: Sequence[SendSlot], layout: Layout, clock: Clock, receiver: int, timeout: timedelta
    ) -> None:
        """``slots`` are as many as the queue is deep; ``receiver`` is the rank named in errors, also in that of packets
        that are not taken within ``timeout``."""
        self._slots = [(slot, layout.views(slot.buffer)) for slot in slots]
        self._clock, self._receiver, self._timeout = clock, receiver, timeout
        self._sent = 0
        self._had_room: deque[tuple[int, DeviceEvent]] = deque()

    def put(self, packet: Packet) -> None:
        """Copy the packet into the next slot and start its send."""
        slot, fields = self._slots[self._sent % len(self._slots)]
        with self._clock.waiting(), lost_peer(self._receiver, f"room for packet {packet.tag.step}"):
            slot.wait()
        self._had_room.append((packet.tag.step, DeviceEvent(slot.buffer.device)))
        if len(self._had_room) > RUN_AHEAD:
            step, moment = self._had_room.popleft()
            with lost_peer(self._receiver, f"room for packet {step}"):
                moment.wait(self._timeout)
        for name, view in fields.items():
            view.copy_(packet[name], non_blocking=True)
        with lost_peer(self._receiver, f"the send of packet {packet.tag.step}"):
            slot.send()
        self._sent += 1

    def close(self) -> None:
        """Wait until every packet has left."""
        for slot, _ in self._slots:
            with lost_peer(self._receiver, "the last packets to be taken"):
                slot.wait()
                DeviceEvent(slot.buffer.device).wait(self._timeout)
