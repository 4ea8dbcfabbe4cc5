"""Learning-rate schedules: pure functions of the position in the run, so that a resumed run needs no state of
theirs."""

import math
from typing import Protocol

from trainer.errors import SettingError, at_least, check_share


class Schedule(Protocol):
    """The learning rate over the run."""

    def __call__(self, epoch: float, epochs: int) -> float:
        """The factor on the base learning rate after ``epoch`` epochs (a fraction inside an epoch) of ``epochs``."""
        ...


class Cosine:
    """Half a cosine over the whole run, from the base rate to zero (Loshchilov & Hutter, arXiv 1608.03983); during the
    warm-up it is blended linearly with ``warmup_start``.

    With ``by_epoch`` the rate changes between epochs only, by the formula of InfoPro's code (arXiv 2101.10832): in
    epoch e of E, counted from 1, ``(1 + cos(pi e / E)) / 2``, in the W epochs of the warm-up times ``(e - 1) / W`` plus
    ``warmup_start (W + 1 - e) / W``. The rate of the very last epoch is then 0.
    """

    def __init__(self, warmup_epochs: float = 0.0, warmup_start: float = 0.01, by_epoch: bool = False) -> None:
        """The warm-up takes ``warmup_epochs`` epochs and begins at ``warmup_start`` times the base rate."""
        at_least(0, {"scheduler.warmup_epochs": warmup_epochs})
        check_share("scheduler.warmup_start", warmup_start)
        self.warmup_epochs, self.warmup_start, self.by_epoch = warmup_epochs, warmup_start, by_epoch

    def __call__(self, epoch: float, epochs: int) -> float:
        """The factor after ``epoch`` of ``epochs`` epochs."""
        if self.by_epoch:
            epoch = math.floor(epoch)
        decayed = 0.5 * (1 + math.cos(math.pi * (epoch + self.by_epoch) / epochs))
        if epoch >= self.warmup_epochs:
            return decayed
        ramp = epoch / self.warmup_epochs
        return decayed * ramp + self.warmup_start * (1 - ramp)


class Step:
    """The base rate, multiplied by a factor at each of some milestones."""

    def __init__(self, milestones: list[float] | None = None, factor: float = 0.1) -> None:
        """``milestones`` are in epochs; by default half and three quarters of the run."""
        if milestones is not None and (not milestones or sorted(milestones) != milestones or min(milestones) <= 0):
            raise SettingError(f"scheduler.milestones={milestones} must be rising numbers of epochs above 0, or null")
        if not 0 < factor < 1:
            raise SettingError(f"scheduler.factor={factor} must lie between 0 and 1")
        self.milestones, self.factor = milestones, factor

    def __call__(self, epoch: float, epochs: int) -> float:
        """The factor after ``epoch`` of ``epochs`` epochs."""
        milestones = self.milestones or [epochs / 2, epochs * 3 / 4]
        return self.factor ** sum(epoch >= milestone for milestone in milestones)


class OneCycle:
    """Half a cosine up to the base rate, and half a cosine down to nearly nothing (Smith & Topin, arXiv 1708.07120, in
    the form of torch's ``OneCycleLR``; momentum stays as it is)."""

    def __init__(self, rise: float = 0.3, start: float = 0.04, end: float = 4e-6) -> None:
        """The way up is ``rise`` of the run; it begins at ``start`` and ends, after the way down, at ``end``, both
        times the base rate."""
        if not 0 < rise < 1:
            raise SettingError(f"scheduler.rise={rise} must lie between 0 and 1")
        for name, value in (("start", start), ("end", end)):
            check_share(f"scheduler.{name}", value)
        self.rise, self.start, self.end = rise, start, end

    def __call__(self, epoch: float, epochs: int) -> float:
        """The factor after ``epoch`` of ``epochs`` epochs."""
        done = epoch / epochs
        if done < self.rise:
            return _cosine_between(self.start, 1.0, done / self.rise)
        return _cosine_between(1.0, self.end, (done - self.rise) / (1 - self.rise))


class Constant:
    """The base rate throughout."""

    def __call__(self, epoch: float, epochs: int) -> float:
        """Always 1."""
        return 1.0


def warnings_of(schedule: Schedule, epochs: int) -> list[str]:
    """What of a schedule a run of so many ``epochs`` never gets to."""
    match schedule:
        case Cosine(warmup_epochs=warmup) if warmup >= epochs:
            return [f"scheduler.warmup_epochs={warmup:g} leaves nothing of epochs={epochs}: the base rate is never met"]
        case Step(milestones=[*_, last]) if last >= epochs:
            beyond = [milestone for milestone in schedule.milestones or [] if milestone >= epochs]
            return [f"scheduler.milestones: {', '.join(f'{m:g}' for m in beyond)} lie beyond epochs={epochs}"]
    return []


def _cosine_between(begin: float, end: float, share: float) -> float:
    """From ``begin`` to ``end`` along half a cosine."""
    return end + (begin - end) * 0.5 * (1 + math.cos(math.pi * share))
