"""Random numbers that depend on what they are for, never on who draws them.

Every draw is named: (seed, purpose, step, unit ...). Two ranks, or two placements of the same blocks, that draw for
the same purpose get the same numbers, which is one half of the promise that a run's result does not depend on how it
is executed.
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache

import torch


STEPS_AT_ONCE = 128
"""So many steps' seeds are derived together: a hash between two pieces of work takes ten times as long as one of many
in a row."""


def derive(seed: int, *purpose: str | int) -> int:
    """A 63-bit seed for one purpose, the same on every machine and in every process."""
    text = "\0".join(str(part) for part in (seed, *purpose))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") >> 1


def derive_for_unit(seed: int, kind: int, step: int, *unit: str | int) -> int:
    """A 63-bit seed for what a unit of a model draws in one step of one kind. Both halves are used again: the step's by
    other units, the unit's in other steps."""
    return _of_steps(seed, kind, step // STEPS_AT_ONCE)[step % STEPS_AT_ONCE] ^ _of_unit(seed, *unit)


@lru_cache(16)
def _of_steps(seed: int, kind: int, run: int) -> list[int]:
    steps = range(run * STEPS_AT_ONCE, (run + 1) * STEPS_AT_ONCE)
    return [derive(seed, "step", int(kind), step) for step in steps]


@lru_cache(1024)
def _of_unit(seed: int, *unit: str | int) -> int:
    return derive(seed, "unit", *unit)


def generator(seed: int, *purpose: str | int) -> torch.Generator:
    """A CPU generator for one purpose."""
    return torch.Generator().manual_seed(derive(seed, *purpose))


@contextmanager
def seeded(seed: int, *purpose: str | int) -> Iterator[None]:
    """Run a piece of code that draws from torch's global CPU generator, as parameter initialization does, for one
    purpose; the generator's state is put back afterwards."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(derive(seed, *purpose))
        yield


def seed_device(device: torch.device, value: int) -> None:
    """Set the generator that dropout and the like draw from on ``device``. Costs microseconds and no
    synchronization, unlike ``torch.manual_seed``, which seeds every device of every kind."""
    if device.type == "cuda":
        torch.cuda.default_generators[device.index or 0].manual_seed(value)
    else:
        torch.default_generator.manual_seed(value)
