"""Edges inside a process, and what remote edges do with slots."""

from datetime import timedelta

import pytest
import torch

from trainer.clock import Clock
from trainer.errors import PacketError, PeerError
from trainer.hostcopy import DeviceEvent
from trainer.packet import OPEN_END, Field, Kind, Layout, Packet, Tag, header
from trainer.plan import Plan
from trainer.transport.edges import EndSink, LocalEdge
from trainer.transport.lost import lost_peer
from trainer.transport.remote import RUN_AHEAD, RemoteSink, RemoteSource

LAYOUT = Layout([Field("x", (2, 3), torch.float32), Field("label", (2,), torch.int64)])
CLOCK = Clock(torch.device("cpu"))
SECONDS = timedelta(seconds=0.05)


def packet(step: int, last_step: int = OPEN_END, **more: torch.Tensor) -> Packet:
    tag = Tag(Kind.TRAIN, step, 2)
    fields = {"x": torch.full((2, 3), float(step)), "label": torch.full((2,), step), **more}
    return Packet(tag, {"header": header(tag, last_step, evaluate=last_step == OPEN_END), **fields})


def test_a_local_edge_hands_on_what_its_layout_says_without_a_copy() -> None:
    edge = LocalEdge(LAYOUT)
    sent = packet(1, image=torch.zeros(2))
    edge.put(sent)
    (received,) = edge.packets([sent.tag])
    assert received["x"] is sent["x"] and list(received.fields) == ["header", "x", "label"]
    edge.close()


def test_a_local_edge_notices_blocks_out_of_step() -> None:
    edge = LocalEdge(LAYOUT)
    edge.put(packet(2))
    with pytest.raises(RuntimeError, match="out of step"):
        list(edge.packets([Tag(Kind.TRAIN, 1, 2)]))


def test_nobody_needs_the_last_output() -> None:
    EndSink().put(packet(1))
    EndSink().close()


class Wire:
    """A connection that delivers in order, and the log of what was done with it."""

    def __init__(self) -> None:
        self.messages: list[torch.Tensor] = []
        self.log: list[str] = []


class Sending:
    """A send slot over a wire, which reads its buffer late, as gloo does."""

    def __init__(self, wire: Wire, name: str) -> None:
        self.buffer = torch.zeros(LAYOUT.nbytes, dtype=torch.uint8)
        self._wire, self._name, self._busy = wire, name, False

    def send(self) -> None:
        assert not self._busy
        self._busy = True
        self._wire.log.append(f"send {self._name}")

    def wait(self) -> None:
        if self._busy:
            self._wire.messages.append(self.buffer.clone())
            self._busy = False
            self._wire.log.append(f"wait {self._name}")


class Receiving:
    """A receive slot over a wire."""

    def __init__(self, wire: Wire, name: str) -> None:
        self.buffer = torch.zeros(LAYOUT.nbytes, dtype=torch.uint8)
        self._wire, self._name = wire, name

    def post(self) -> None:
        self._wire.log.append(f"post {self._name}")

    def wait(self) -> None:
        self.buffer.copy_(self._wire.messages.pop(0))
        self._wire.log.append(f"take {self._name}")


def sent(wire: Wire, packets: list[Packet], depth: int = 2) -> None:
    sink = RemoteSink([Sending(wire, str(index)) for index in range(depth)], LAYOUT, CLOCK, receiver=1, timeout=SECONDS)
    for item in packets:
        sink.put(item)
    sink.close()


def test_a_send_slot_is_reused_only_after_its_send() -> None:
    wire = Wire()
    sent(wire, [packet(step) for step in (1, 2, 3)])
    assert wire.log == ["send 0", "send 1", "wait 0", "send 0", "wait 0", "wait 1"]
    values = [LAYOUT.views(message)["x"][0, 0].item() for message in wire.messages]
    assert sorted(values) == [1, 2, 3]


def test_the_next_receive_is_posted_before_a_packet_is_worked_on_and_none_too_many() -> None:
    wire, plan = Wire(), Plan(train_size=6, test_size=1, batch_size=2, epochs=1)
    plan.evaluate = False
    sent(wire, [packet(step) for step in (1, 2, 3)], depth=4)
    wire.log.clear()
    source = RemoteSource([Receiving(wire, "0"), Receiving(wire, "1")], LAYOUT, plan, CLOCK, sender=0, timeout=SECONDS)
    for received in source.packets(plan.all_tags()):
        assert torch.equal(received["label"], torch.full((2,), received.tag.step))
        wire.log.append(f"work {received.tag.step}")
    assert wire.log == ["post 0", "take 0", "post 1", "work 1", "take 1", "post 0", "work 2", "take 0", "work 3"]


def test_a_header_ends_the_run_early() -> None:
    wire, plan = Wire(), Plan(20, 2, 2, epochs=1)
    sent(wire, [packet(1), packet(2, last_step=3), packet(3)], depth=4)
    source = RemoteSource([Receiving(wire, "0"), Receiving(wire, "1")], LAYOUT, plan, CLOCK, sender=0, timeout=SECONDS)
    assert [received.tag.step for received in source.packets(plan.all_tags())] == [1, 2, 3]
    assert plan.last_step == 3 and not plan.evaluate


def test_a_packet_out_of_turn_is_noticed() -> None:
    wire, plan = Wire(), Plan(20, 2, 2, epochs=1)
    sent(wire, [packet(2)])
    source = RemoteSource([Receiving(wire, "0"), Receiving(wire, "1")], LAYOUT, plan, CLOCK, sender=0, timeout=SECONDS)
    with pytest.raises(PacketError, match="rank 0 sent the train packet 2 .* where the train packet 1 .* was due"):
        list(source.packets(plan.all_tags()))


def test_a_packet_asked_for_out_of_turn_is_noticed() -> None:
    wire, plan = Wire(), Plan(20, 2, 2, epochs=1)
    source = RemoteSource([Receiving(wire, "0")], LAYOUT, plan, CLOCK, sender=3, timeout=SECONDS)
    with pytest.raises(PacketError, match="step=2.* where .*step=1.* comes next from rank 3"):
        list(source.packets([Tag(Kind.TRAIN, 2, 2)]))


class Stuck(DeviceEvent):
    """A moment that a device does not get to, because NCCL waits for another rank."""

    def passed(self) -> bool:
        return False


def test_a_device_that_waits_for_a_peer_for_too_long_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    wire, plan = Wire(), Plan(20, 2, 2, epochs=1)
    sent(wire, [packet(step) for step in range(1, 11)], depth=10)
    source = RemoteSource([Receiving(wire, "0"), Receiving(wire, "1")], LAYOUT, plan, CLOCK, 3, SECONDS)
    sink = RemoteSink([Sending(wire, "0")], LAYOUT, CLOCK, 5, SECONDS)
    monkeypatch.setattr("trainer.hostcopy.DeviceEvent", Stuck)
    with pytest.raises(PeerError, match="rank 3 .* while this rank waited for packet 1$"):
        list(source.packets(plan.all_tags()))
    assert wire.messages[0][8] == RUN_AHEAD + 2  # the step of the packet that the host did not go on to
    monkeypatch.setattr("trainer.transport.remote.DeviceEvent", Stuck)
    with pytest.raises(PeerError, match="rank 5 .* while this rank waited for the last packets to be taken$"):
        sink.close()
    with pytest.raises(PeerError, match="rank 5 .* while this rank waited for room for packet 1$"):
        for step in range(1, RUN_AHEAD + 2):
            sink.put(packet(step))


def test_a_lost_peer_is_named() -> None:
    with pytest.raises(
        PeerError, match="rank 3 went away or did not answer in time while this rank waited for packet 9"
    ):
        with lost_peer(3, "packet 9"):
            raise RuntimeError("Connection closed by peer")
