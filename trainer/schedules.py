"""Learning-rate schedules: pure functions of the position in the run, so that a resumed run needs no state of
theirs."""

import math
from typing import Protocol

from trainer.errors import SettingError


class Schedule(Protocol):
    """The learning rate over the run."""

    def __call__(self, epoch: float, epochs: int) -> float:
        """The factor on the base learning rate after ``epoch`` epochs (a fraction inside an epoch) of ``epochs``."""
        ...


class Cosine:
    """Half a cosine from the base rate to zero, behind a linear warm-up."""

    def __init__(self, warmup_epochs: float = 0.0, warmup_start: float = 0.01) -> None:
        """The warm-up takes ``warmup_epochs`` epochs and begins at ``warmup_start`` times the base rate."""
        if warmup_epochs < 0:
            raise SettingError(f"scheduler.warmup_epochs={warmup_epochs} can't be negative")
        self.warmup_epochs, self.warmup_start = warmup_epochs, warmup_start

    def __call__(self, epoch: float, epochs: int) -> float:
        """The factor after ``epoch`` of ``epochs`` epochs."""
        decayed = 0.5 * (1 + math.cos(math.pi * epoch / epochs))
        if epoch >= self.warmup_epochs:
            return decayed
        ramp = epoch / self.warmup_epochs
        return decayed * ramp + self.warmup_start * (1 - ramp)


class Constant:
    """The base rate throughout."""

    def __call__(self, epoch: float, epochs: int) -> float:
        """Always 1."""
        return 1.0
