"""Remote edges between real ranks."""

import itertools
import signal
import threading
import time
from dataclasses import replace
from datetime import timedelta
from os import getpid

import pytest
import torch

from tests.transport.conftest import OnRanks
from trainer.clock import Clock
from trainer.data.images import DataSpec, Images, Split
from trainer.data.source import ImageSource, data_fields
from trainer.ending import EndByHeaders
from trainer.hostcopy import HostCopy, DeviceEvent
from trainer.packet import Layout
from trainer.plan import Plan
from trainer.rank import Rank
from trainer.stop import StopRequest
from trainer.transport.connect import open_edges
from trainer.transport.edges import Source
from trainer.transport.remote import STOP_LEAD

CPU = torch.device("cpu")
SPEC = DataSpec(400, 4, 10, (1, 2, 2), (0.5,), (0.5,))
LAYOUT = Layout([data_fields(SPEC, 2)[name] for name in ("x", "label")])


class LateCopy(HostCopy):
    """What a GPU does that is busy all the time: nothing has arrived until somebody waits for it."""

    def ready(self) -> bool:
        return False


def images(plan: Plan) -> Source:
    """Image n has the label n modulo 10."""
    splits = (Split(torch.zeros(n, 1, 2, 2, dtype=torch.uint8), torch.arange(n) % 10) for n in (400, 4))
    return ImageSource(Images(*splits, 10), SPEC, [], plan, 0, CPU)


def steps_done(rank: Rank, asked_after: int | None = None) -> list[int]:
    """The labels of all packets, on a rank that only hands on what comes in; rank 0 is asked to end the run after step
    ``asked_after``."""
    plan, stop = Plan(400, 4, 2, epochs=1), StopRequest()
    owners = range(rank.world_size)
    first = images(plan) if rank.rank == 0 else None
    ((source, sink),) = open_edges(rank, owners, [LAYOUT] * (len(owners) - 1), first, plan, Clock(CPU), 2)
    ending, labels = EndByHeaders(plan, stop, rank.rank, rank.world_size), []
    for packet in source.packets(plan.all_tags()):
        sink.put(packet)
        labels += packet["label"].tolist()
        if packet.tag.step == asked_after:
            stop.ask(signal.SIGTERM)
        ending.trained(packet.tag.step)
    sink.close()
    return labels


@pytest.mark.parametrize("shared", [True, False])
def test_ranks_find_out_whether_they_share_a_gpu(
    shared: bool, on_ranks: OnRanks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trainer.rank.device_name", lambda device: "GPU-a" if shared else f"GPU-{getpid()}")
    assert on_ranks(2, lambda rank: rank.staged) == [shared, shared]


class SlowEveryOther(DeviceEvent):
    """The end of a copy to the host, which is noticed late for every other packet."""

    count = itertools.count()

    def wait(self, timeout: timedelta | None = None) -> None:
        time.sleep(0.005 * (next(self.count) % 2 == 0))


@pytest.mark.parametrize("staged", [False, True])
def test_every_rank_gets_all_packets_in_order(
    staged: bool, on_ranks: OnRanks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trainer.transport.slots.DeviceEvent", SlowEveryOther)
    first, *others = on_ranks(3, lambda rank: steps_done(replace(rank, staged=staged)))
    assert len(first) == 404 and others == [first] * 2


def test_an_early_end_reaches_every_rank_of_a_chain_in_time_where_headers_are_read_late(
    on_ranks: OnRanks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trainer.transport.remote.HostCopy", LateCopy)
    first, *others = on_ranks(4, lambda rank: steps_done(rank, asked_after=20))
    assert len(first) == 2 * (20 + STOP_LEAD)
    assert others == [first] * 3


@pytest.mark.parametrize("slow", [0, 1])
def test_waiting_for_a_slow_rank_is_not_work(slow: int, on_ranks: OnRanks) -> None:
    """For its packets, and for room where it takes them slowly."""
    steps, seconds = 30, 0.02

    def times(rank: Rank) -> tuple[float, float]:
        plan, clock = Plan(400, 4, 2, epochs=1, max_steps=steps), Clock(CPU)
        first = images(plan) if rank.rank == 0 else None
        ((source, sink),) = open_edges(rank, [0, 1], [LAYOUT], first, plan, clock, 2)
        clock.start()
        for packet in source.packets(plan.all_tags()):
            if rank.rank == slow:
                time.sleep(seconds)
            sink.put(packet)
        sink.close()
        lap = clock.lap(steps).resolve()
        assert lap["wait_seconds"] is not None and lap["busy_seconds"] is not None
        return lap["wait_seconds"], lap["busy_seconds"]

    waited = on_ranks(2, times)
    assert waited[slow][1] > steps * seconds  # busy
    assert waited[1 - slow][0] > (steps - 6) * seconds  # waited, but for what queue and slots hold


def test_the_send_queue_is_as_deep_as_it_is_set(on_ranks: OnRanks) -> None:
    def ahead(rank: Rank, depth: int) -> int:
        """How many packets rank 0 hands on while rank 1 takes none: it begins when no more come."""
        plan = Plan(400, 4, 2, epochs=1, max_steps=20)
        first = images(plan) if rank.rank == 0 else None
        ((source, sink),) = open_edges(rank, [0, 1], [LAYOUT], first, plan, Clock(CPU), depth)
        control, handed, stood = rank.control.clone(), list[int](), list[int]()

        def watch() -> None:
            while not handed or stood[-1:] != [len(handed)]:
                stood.append(len(handed))
                time.sleep(0.5)
            control.agree("no more come", lambda: True)

        if rank.rank == 0:
            threading.Thread(target=watch, daemon=True).start()
        else:
            control.agree("no more come", lambda: False)
        for packet in source.packets(plan.all_tags()):
            sink.put(packet)
            handed.append(packet.tag.step)
        sink.close()
        return stood[-1] if rank.rank == 0 else 0

    shallow, deep = (on_ranks(2, lambda rank, depth=depth: ahead(rank, depth))[0] for depth in (1, 5))
    assert deep - shallow == 4
