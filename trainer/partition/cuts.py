"""Exact minimization of the costliest part of a sequence cut into runs."""

from collections.abc import Callable
from functools import cache


def balance(length: int, parts: int, cost: Callable[[int, int], float]) -> list[int]:
    """Cut ``range(length)`` into ``parts`` runs such that the costliest is as cheap as can be.

    Of the cuts that reach that minimum, the one with the least sum of squared costs is taken, and of those the
    earliest, so that equal inputs give equal cuts on every machine.

    Args:
        length: how many items.
        parts: how many runs, none of them empty.
        cost: the cost of the run from item ``i`` up to and without item ``j``; infinite where it is forbidden.

    Returns:
        The end of each run but the last: ``parts - 1`` rising numbers.

    Raises:
        ValueError: no cut has a finite cost, or there are more parts than items.
    """
    if not 1 <= parts <= length:
        raise ValueError(f"{length} items can't be cut into {parts} parts")

    @cache
    def run_cost(start: int, stop: int) -> float:
        return cost(start, stop)

    bound = _best(length, parts, run_cost, max)[0]
    if bound == float("inf"):
        raise ValueError("no cut is allowed everywhere")

    def squared(start: int, stop: int) -> float:
        value = run_cost(start, stop)
        return value**2 if value <= bound else float("inf")

    return list(_best(length, parts, squared, lambda a, b: a + b)[1])


def _best(
    length: int, parts: int, cost: Callable[[int, int], float], join: Callable[[float, float], float]
) -> tuple[float, tuple[int, ...]]:
    """The least cost of all cuts under ``join``, and the first cut that has it; dynamic programming over prefixes."""
    best: dict[int, tuple[float, tuple[int, ...]]] = {stop: (cost(0, stop), ()) for stop in range(1, length + 1)}
    for part in range(2, parts + 1):
        best = {
            stop: min(
                (join(best[start][0], cost(start, stop)), (*best[start][1], start)) for start in range(part - 1, stop)
            )
            for stop in range(part, length + 1)
        }
    return best[length]
