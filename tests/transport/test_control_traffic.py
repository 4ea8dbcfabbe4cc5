"""Control traffic over a real store."""

import threading

import torch.distributed as dist

from tests.transport.conftest import OnRanks
from trainer.errors import PeerError
from trainer.rank import Rank
from trainer.transport.control import Control


def pair() -> tuple[Control, Control]:
    store = dist.HashStore()
    return Control(store, 0, 2), Control(store.clone(), 1, 2)


def test_rank_0_decides_once_and_the_others_wait() -> None:
    zero, one = pair()
    heard: list[object] = []
    listener = threading.Thread(target=lambda: heard.append(one.agree("key", lambda: "never asked")))
    listener.start()
    assert zero.agree("key", lambda: {"a": [1, 2]}) == {"a": [1, 2]}
    listener.join(5)
    assert heard == [{"a": [1, 2]}]
    assert zero.agree("key", lambda: "asked again") == {"a": [1, 2]}


def test_no_rank_leaves_before_the_others_know_that_it_may() -> None:
    zero, one = pair()
    left: list[int] = []
    ranks = [threading.Thread(target=lambda rank=rank: (rank.part(), left.append(rank.rank))) for rank in (zero, one)]
    for rank in ranks:
        rank.start()
        rank.join(0.05)
        assert left == [] or rank is ranks[1]  # the one alone waits
    for rank in ranks:
        rank.join(5)
    assert sorted(left) == [0, 1]


def test_records_of_a_rank_arrive_in_order() -> None:
    zero, one = pair()
    for step in range(3):
        one.post({"step": step})
    records = zero.records()
    assert [next(records) for _ in range(3)] == [{"rank": 1, "step": step} for step in range(3)]


def test_one_process_gathers_its_own() -> None:
    assert Control(dist.HashStore(), 0, 1).gather("mine") == ["mine"]


def test_a_rank_that_is_gone_has_nothing_to_gather(on_ranks: OnRanks) -> None:
    def work(rank: Rank) -> list[str]:
        if rank.rank == 1:
            dist.destroy_process_group()
            return []
        try:
            rank.control.gather("mine")
        except PeerError as error:
            return [str(error)]
        return ["gathered"]

    (found,), _ = on_ranks(2, work)
    assert found.startswith("a rank went away or did not answer in time during the collecting of")
