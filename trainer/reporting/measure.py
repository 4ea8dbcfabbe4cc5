"""What a rank measures of its blocks and of itself, and when it reports it."""

from collections.abc import Sequence

from trainer.block import Block
from trainer.clock import Clock, Lap
from trainer.meter import Totals
from trainer.reporting.records import Record
from trainer.reporting.reporter import Reporter

LEFT_OUT_STEPS = 5
"""The first steps of a run do not count for speeds: memory is allocated, kernels are chosen and the pipeline fills."""


class Measure:
    """A rank's measurements; every method returns at once, on CUDA too."""

    def __init__(self, blocks: Sequence[Block], clock: Clock, reporter: Reporter, log_every: int, done: int) -> None:
        """Every ``log_every`` steps a step is reported; ``done`` is the number of steps done before this process."""
        self._blocks, self._clock, self._reporter, self._log_every = blocks, clock, reporter, log_every
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
        """Step number ``step`` is done."""
        logged = step % self._log_every == 0
        if logged or step == self._left_out_until:
            lap = self._lap(step)
            if logged:
                self._report_step(step, epoch, lap)

    def end_training(self, step: int) -> None:
        """The pass of training steps is over, step ``step`` was its last."""
        if step > self._lap_begin:
            self._lap(step)
        self._train = {block.index: block.meter.take_pass() for block in self._blocks}

    def end_test(self) -> None:
        """The test is over."""
        self._test = {block.index: block.meter.take_pass() for block in self._blocks}

    def end_epoch(self, step: int, epoch: int) -> None:
        """The epoch's training steps, and its test if it has one, are over."""
        train, test, laps = self._train, self._test, self._laps

        def make() -> Record:
            resolved = [lap.resolve() for lap in laps]
            keys = ("seconds", "busy_seconds", "wait_seconds", "steps")
            blocks = {
                index: {"train": totals.mean(), "test": test[index].mean() if index in test else None}
                for index, totals in train.items()
            }
            lap = {key: sum(part[key] for part in resolved) for key in keys}
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
        totals = {block.index: (block.meter.take_window(), block.update.learning_rate) for block in self._blocks}

        def make() -> Record:
            seconds = lap.resolve()
            busy = seconds["busy_seconds"] / seconds["seconds"] if seconds["seconds"] else 0.0
            blocks = {
                index: {**window.mean(), "learning_rate": rate, "busy": round(busy, 4)}
                for index, (window, rate) in totals.items()
            }
            return {"kind": "step", "step": step, "epoch": epoch, "blocks": blocks}

        self._reporter.post(make)
