"""Opening the edges of a run: a process group for each pair of neighboring ranks, tried out before the first
packet."""

from collections.abc import Sequence

import torch
import torch.distributed as dist

from trainer.clock import Clock
from trainer.errors import PacketError
from trainer.hostcopy import HostCopy
from trainer.packet import Layout
from trainer.plan import Plan
from trainer.rank import Rank
from trainer.transport.edges import EndSink, LocalEdge, Sink, Source
from trainer.transport.lost import lost_peer
from trainer.transport.remote import RemoteSink, RemoteSource
from trainer.transport.slots import receive_slots, send_slots

RECEIVE_SLOTS = 2


def open_edges(
    rank: Rank,
    owners: Sequence[int],
    layouts: Sequence[Layout],
    first: Source | None,
    plan: Plan,
    clock: Clock,
    queue_depth: int,
) -> list[tuple[Source, Sink]]:
    """The source and the sink of each block of this rank.

    Args:
        rank: this rank.
        owners: the rank of each block, rising by at most one.
        layouts: the packets between blocks k and k + 1, for each k but the last.
        first: the source of block 0, on the rank that owns it.
        plan: the run's plan on this rank.
        clock: told of every wait.
        queue_depth: slots of a send queue.

    Raises:
        PacketError: the two ranks of an edge do not agree on its packets.
    """
    groups = pair_groups(rank)
    sources: dict[int, Source] = {} if first is None else {0: first}
    sinks: dict[int, Sink] = {len(owners) - 1: EndSink()}
    for block, (layout, sender, receiver) in enumerate(zip(layouts, owners, owners[1:], strict=False)):
        if sender == receiver:
            edge = LocalEdge(layout)
            sinks[block], sources[block + 1] = edge, edge
            continue
        if rank.rank not in (sender, receiver):
            continue
        group = groups[sender]
        _try_out(layout, sender, receiver, rank, group)
        if rank.rank == sender:
            slots = send_slots(queue_depth, layout.nbytes, rank.device, receiver, group, rank.staged)
            sinks[block] = RemoteSink(slots, layout, clock, receiver, rank.timeout)
        else:
            posts = receive_slots(RECEIVE_SLOTS, layout.nbytes, rank.device, sender, group, rank.staged)
            sources[block + 1] = RemoteSource(posts, layout, plan, clock, sender, rank.timeout)
    return [(sources[block], sinks[block]) for block, owner in enumerate(owners) if owner == rank.rank]


def pair_groups(rank: Rank) -> dict[int, dist.ProcessGroup]:
    """A group for each pair of neighbors, by the lower rank: on a shared communicator, a posted receive could hold up
    the sends behind it. Every rank makes all of them, in the same order, as ``new_group`` demands."""
    size = rank.world_size // rank.replicas
    pairs = [[r, r + 1] for r in range(rank.world_size - 1) if (r + 1) % size]
    pairs.sort(key=lambda pair: pair[0] % 2)  # a pair connects at once, so two rounds instead of one after another
    return {pair[0]: rank.group(pair) for pair in pairs}


def _try_out(layout: Layout, sender: int, receiver: int, rank: Rank, group: dist.ProcessGroup) -> None:
    """Send one number over an edge: a pair's first message sets up the connection, which blocks both sides and so has
    no place in the training loop. The number tells whether both mean the same packets."""
    device = torch.device("cpu") if rank.staged else rank.device
    number = torch.tensor([layout.digest()], device=device)
    if rank.rank == sender:
        with lost_peer(receiver, "the connection between the two"):
            dist.send(number, receiver, group)
        return
    with lost_peer(sender, "the connection between the two"):
        dist.recv(number, sender, group)
        received = HostCopy(number).wait(rank.timeout)
    if received.item() != layout.digest():
        raise PacketError(
            f"ranks {sender} and {receiver} disagree about the packets between them; do they run the same code "
            f"and settings?"
        )
