"""An early end is decided by rank 0, and reaches every rank before it begins a step beyond."""

import signal
from datetime import timedelta

import pytest
import torch
import torch.distributed as dist

from trainer.ending import EndByHeaders, EndTogether
from trainer.errors import PeerError
from trainer.hostcopy import DeviceEvent
from trainer.launch import Launch
from trainer.plan import Plan
from trainer.rank import Rank
from trainer.stop import StopRequest
from trainer.transport.control import Control
from trainer.transport.remote import STOP_LEAD


def asked() -> StopRequest:
    stop = StopRequest()
    stop.ask(signal.SIGTERM)
    return stop


@pytest.mark.parametrize("rank", [0, 1])
def test_rank_0_ends_a_chain_beyond_what_is_under_way(rank: int) -> None:
    plan = Plan(400, 8, 4, epochs=1)
    EndByHeaders(plan, asked(), rank, 2).trained(3)
    assert plan.early_end == (3 + STOP_LEAD if rank == 0 else -1)


def test_an_end_in_a_test_is_a_step_that_follows_it() -> None:
    plan = Plan(40, 40, 4, epochs=2)
    EndByHeaders(plan, asked(), 0, 2).tested(10, batch=10)
    assert plan.early_end == 10 + STOP_LEAD
    long = Plan(40, 400, 4, epochs=2)
    EndByHeaders(long, asked(), 0, 2).tested(10, batch=1)
    assert long.early_end == 11


def test_a_process_alone_ends_with_the_step_it_has_done() -> None:
    plan = Plan(400, 8, 4, epochs=1)
    EndByHeaders(plan, asked(), 0, 1).trained(3)
    assert plan.early_end == 3
    testing = Plan(40, 40, 4, epochs=2)
    EndByHeaders(testing, asked(), 0, 1).tested(10, batch=10)
    assert testing.early_end == 11


def test_nobody_asked() -> None:
    plan = Plan(40, 8, 4, epochs=1)
    EndByHeaders(plan, StopRequest(), 0, 2).trained(3)
    assert not plan.stopped


def rank_of(store: dist.Store, rank: int) -> Rank:
    launch = Launch(rank, 3, rank, 3, environment={})
    return Rank(launch, torch.device("cpu"), 1, timedelta(seconds=5), Control(store, rank, 3))


@pytest.mark.parametrize(("asked_at", "end"), [(1, 8), (7, 8), (8, 16), (9, 16)])
def test_replicas_end_together_at_the_next_meeting(asked_at: int, end: int) -> None:
    store, stop = dist.HashStore(), StopRequest()
    plans = [Plan(400, 8, 4, epochs=1) for _ in range(3)]
    endings = [
        EndTogether(plan, stop if rank == 0 else StopRequest(), rank_of(store, rank))
        for rank, plan in enumerate(plans)
    ]
    done = []
    for step in range(1, 100):
        if step == asked_at:
            stop.ask(signal.SIGTERM)
        for rank, (plan, ending) in enumerate(zip(plans, endings, strict=True)):
            if step <= plan.last_step:
                ending.trained(step)
                done.append((rank, step))
    assert [plan.early_end for plan in plans] == [end] * 3
    assert [max(step for rank, step in done if rank == number) for number in range(3)] == [end] * 3


def test_a_host_that_is_ahead_of_its_device_does_not_miss_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a GPU: its host is through with step 8 while rank 0 is not through with step 3, and is then asked."""
    store, plans = dist.HashStore(), [Plan(400, 8, 4, epochs=1) for _ in range(2)]
    first = EndTogether(plans[0], asked(), rank_of(store, 0))

    class Device:
        def __init__(self, device: torch.device) -> None:
            pass

        def wait(self, timeout: timedelta) -> None:
            first.trained(3)

    monkeypatch.setattr("trainer.ending.DeviceEvent", Device)
    EndTogether(plans[1], StopRequest(), rank_of(store, 1)).trained(8)
    assert plans[1].early_end == 8


def test_a_rank_that_does_not_come_to_a_meeting(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(moment: DeviceEvent, timeout: timedelta) -> None:
        raise TimeoutError

    monkeypatch.setattr(DeviceEvent, "wait", never)
    with pytest.raises(PeerError, match="did not answer in time during train step 8"):
        EndTogether(Plan(400, 8, 4, epochs=1), StopRequest(), rank_of(dist.HashStore(), 1)).trained(8)
