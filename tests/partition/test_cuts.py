"""The cut is the best of all cuts, by trying all of them."""

import itertools
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.partition.cuts import balance


def best_by_hand(costs: list[int], parts: int) -> tuple[float, float]:
    found = []
    for ends in itertools.combinations(range(1, len(costs)), parts - 1):
        bounds = [0, *ends, len(costs)]
        sums = [sum(costs[a:b]) for a, b in itertools.pairwise(bounds)]
        found.append((max(sums), sum(s * s for s in sums)))
    return min(found)


@given(st.lists(st.integers(0, 50), min_size=1, max_size=9), st.data())
def test_no_cut_is_better(costs: list[int], data: st.DataObject) -> None:
    parts = data.draw(st.integers(1, len(costs)))
    ends = balance(len(costs), parts, lambda a, b: sum(costs[a:b]))
    assert len(ends) == parts - 1 and ends == sorted(set(ends)) and all(0 < end < len(costs) for end in ends)
    sums = [sum(costs[a:b]) for a, b in itertools.pairwise([0, *ends, len(costs)])]
    assert (max(sums), sum(s * s for s in sums)) == best_by_hand(costs, parts)


def test_forbidden_cuts_are_not_made() -> None:
    def cost(start: int, stop: int) -> float:
        return float("inf") if stop == 2 else stop - start

    assert balance(4, 2, cost) in ([1], [3])
    with pytest.raises(ValueError, match="no cut is allowed"):
        balance(2, 1, cost)


@pytest.mark.parametrize("parts", [0, 4])
def test_impossible_numbers_of_parts(parts: int) -> None:
    with pytest.raises(ValueError, match="3 items"):
        balance(3, parts, lambda a, b: b - a)


def test_it_is_fast_enough_for_deep_networks() -> None:
    costs = [random.Random(0).random() for _ in range(120)]
    assert len(balance(120, 16, lambda a, b: sum(costs[a:b]))) == 15
