"""Ranks agree on which start this is, whatever earlier starts left in the store."""

import threading
from concurrent.futures import ThreadPoolExecutor

import torch.distributed as dist

from trainer.transport.attempt import agree_on_attempt

RANKS = 3


def start(store: dist.Store, late: int) -> set[int]:
    """All ranks, rank ``late`` after the others."""
    with ThreadPoolExecutor(RANKS) as pool:
        ranks = [pool.submit(agree_on_attempt, store.clone(), rank, RANKS) for rank in range(RANKS) if rank != late]
        threading.Event().wait(0.2)
        assert not any(rank.done() for rank in ranks)
        ranks.append(pool.submit(agree_on_attempt, store.clone(), late, RANKS))
        return {rank.result(10) for rank in ranks}


def test_all_ranks_get_one_number_and_the_next_start_the_next() -> None:
    store = dist.HashStore()
    assert [start(store, late) for late in (0, 1, 2, 0)] == [{1}, {2}, {3}, {4}]


def test_a_rank_that_died_before_the_others_came_is_not_taken_for_the_new_one() -> None:
    store = dist.HashStore()
    store.set("here/1/1", "of a process that is dead")
    store.add("attempt", 1)  # so is this rank 0
    assert start(store, 1) == {2}
