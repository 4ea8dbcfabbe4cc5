"""What a rank measures of its blocks and of itself, and when it reports it."""

from collections.abc import Iterable, Sequence

from trainer.clock import Clock, Lap, peak_memory_bytes
from trainer.learner import Learner
from trainer.meter import Totals
from trainer.reporting.records import Record
from trainer.reporting.reporter import Reporter

LEFT_OUT_STEPS = 5
"""The first steps of a run do not count for speeds: memory is allocated, kernels are chosen and the pipeline fills."""

LAP_KEYS = ("seconds", "busy_seconds", "wait_seconds", "image_wait_seconds", "steps")


class Measure:
    """A rank's measurements; every method returns at once, on CUDA too."""

    def __init__(
        self, learners: Sequence[Learner], clock: Clock, reporter: Reporter, log_every: int, done: int
    ) -> None:
        """Every ``log_every`` steps a step is reported; ``done`` is the number of steps done before this process."""
        self._learners, self._clock, self._reporter, self._log_every = learners, clock, reporter, log_every
        self._lap_begin, self._left_out_until = done, done + LEFT_OUT_STEPS
        self._laps: list[Lap] = []
        self._train: dict[int, Totals] = {}
        self._test: dict[int, Totals] = {}

    def begin_training(self, step: int) -> None:
        """A pass of training steps begins after step ``step``."""
        self._train, self._test, self._laps = {}, {}, []
        self._lap_begin = step
        self._clock.start()

    def step(self, step: int, epoch: int) -> None:
        """Step number ``step`` is done. Raises what has ended the reporting."""
        self._reporter.check()
        logged = step % self._log_every == 0
        if logged or step == self._left_out_until:
            lap = self._lap(step)
            if logged:
                self._report_step(step, epoch, lap)

    def end_training(self, step: int) -> None:
        """The pass of training steps is over, step ``step`` was its last."""
        if step > self._lap_begin:
            self._lap(step)
        self._train = {learner.index: learner.meter.take_pass() for learner in self._learners}

    def end_test(self) -> None:
        """The test is over."""
        self._test = {learner.index: learner.meter.take_pass() for learner in self._learners}

    def end_epoch(self, step: int, epoch: int) -> None:
        """The epoch's training steps, and its test if it has one, are over."""
        train, test, laps, device = self._train, self._test, self._laps, self._clock.device

        def make() -> Record:
            """The record of the epoch; waits for the device."""
            resolved = [lap.resolve() for lap in laps]
            blocks = {
                index: {"train": totals.sums(), "test": test[index].sums() if index in test else None}
                for index, totals in train.items()
            }
            lap: Record = {key: _sum(part[key] for part in resolved) for key in LAP_KEYS}
            lap["peak_memory_bytes"] = peak_memory_bytes(device)
            return {"kind": "epoch", "step": step, "epoch": epoch, "blocks": blocks, "lap": lap}

        self._reporter.post(make)

    def _lap(self, step: int) -> Lap:
        lap = self._clock.lap(step - self._lap_begin)
        if step > self._left_out_until:
            self._laps.append(lap)
        self._lap_begin = step
        self._clock.start()
        return lap

    def _report_step(self, step: int, epoch: int, lap: Lap) -> None:
        totals = {
            learner.index: (learner.meter.take_window(), learner.update.learning_rate) for learner in self._learners
        }

        def make() -> Record:
            """The record of the step; waits for the device."""
            blocks = {
                index: {"train": window.sums(), "learning_rate": rate} for index, (window, rate) in totals.items()
            }
            return {"kind": "step", "step": step, "epoch": epoch, "blocks": blocks, "lap": lap.resolve()}

        self._reporter.post(make)


def _sum(values: Iterable[float | None]) -> float | None:
    """The sum, unknown where one of them is."""
    known = list(values)
    return None if None in known else sum(value for value in known if value is not None)
