"""The cut is the best of all cuts, by trying all of them."""

import itertools
import math
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


@given(st.lists(st.integers(0, 20), min_size=1, max_size=8), st.data())
def test_forbidden_cuts_are_never_made(costs: list[int], data: st.DataObject) -> None:
    parts = data.draw(st.integers(1, len(costs)))
    forbidden = data.draw(st.sets(st.integers(1, max(1, len(costs) - 1))))

    def cost(start: int, stop: int) -> float:
        return math.inf if stop in forbidden and stop != len(costs) else sum(costs[start:stop])

    allowed = set(range(1, len(costs))) - forbidden
    if len(allowed) < parts - 1:
        with pytest.raises(ValueError, match="no cut is allowed everywhere"):
            balance(len(costs), parts, cost)
    else:
        assert set(balance(len(costs), parts, cost)) <= allowed


@pytest.mark.parametrize("parts", [0, 4])
def test_impossible_numbers_of_parts(parts: int) -> None:
    with pytest.raises(ValueError, match="3 items"):
        balance(3, parts, lambda a, b: b - a)


def test_it_is_fast_enough_for_deep_networks() -> None:
    costs = [random.Random(0).random() for _ in range(120)]
    assert len(balance(120, 16, lambda a, b: sum(costs[a:b]))) == 15
