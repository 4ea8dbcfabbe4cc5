"""What a person sees: tables at the start and the end, a line an epoch, and on a terminal a live view of the blocks."""

import contextlib
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from trainer.data.images import tested_on
from trainer.partition.partition import Partition
from trainer.reporting.listener import Listener
from trainer.reporting.records import Record, RunFacts
from trainer.reporting.tables import exit_lines, short, table

if TYPE_CHECKING:
    from trainer.reporting.live import LiveView


SLOW_IMAGES = 0.05
"""The share of a rank's time that it may wait for images before somebody should know."""


class Console(Listener):
    """Writes to the terminal and to ``console.log``."""

    def __init__(self, path: Path, stream: TextIO | None = None) -> None:
        """``path`` is the log file's; ``stream`` is standard output unless given."""
        self._stream = stream or sys.stdout
        self._path, self._log = path, path.open("a", encoding="utf-8")
        self._log_fails = False
        self._told_of_images = False
        self._live: "LiveView | None" = None
        self._lock = threading.RLock()

    def start(self, run: RunFacts) -> None:
        """Say how it runs and where it is cut."""
        self._run = run
        for line in run.description:
            self.say(line)
        self.say("")
        for line in partition_table(run.partition):
            self.say(line)
        self.say("")
        self._epochs = EpochTable(run)
        for line in self._epochs.header():
            self.say(line)
        if self._stream.isatty():
            from trainer.reporting.live import LiveView

            self._live = LiveView(run, self._stream)

    def step(self, record: Record) -> None:
        """Only the live view shows steps."""
        if self._live is not None:
            self._live.step(record)

    def epoch(self, record: Record) -> None:
        """One line."""
        if self._live is not None:
            self._live.epoch(record)
        self.say(self._epochs.row(record))
        waited = max(rank["image_wait_seconds"] for rank in record["ranks"])
        if waited > SLOW_IMAGES * record["measured_seconds"] and not self._told_of_images:
            self._told_of_images = True
            self.warning(f"{_of_images(waited / record['measured_seconds'])}; more dataset.workers read faster")

    def summary(self, record: Record) -> None:
        """The result."""
        self._end_live()
        self.say("")
        for line in summary_lines(record, self._run):
            self.say(line)

    def warning(self, text: str) -> None:
        """One line."""
        self.say(f"warning: {text}")

    def close(self, failed: bool) -> None:
        """Close the live view and the log."""
        self._end_live()
        with contextlib.suppress(OSError):  # said already
            self._log.close()

    def say(self, line: str) -> None:
        """Write a line to the terminal and to the log; any thread may."""
        with self._lock:
            self._keep(line)  # first: the terminal may have gone
            with contextlib.suppress(OSError):  # nobody reads it any more; the log has it
                if self._live is not None:
                    self._live.print(line)
                else:
                    print(line, file=self._stream, flush=True)

    def _keep(self, line: str) -> None:
        """Write a line to the log. Where there is no room, its buffer keeps the lines until there is."""
        try:
            if not self._path.exists():  # somebody has removed it
                self._path.parent.mkdir(parents=True, exist_ok=True)
                self._log = self._path.open("a", encoding="utf-8")
            self._log.write(line + "\n")
            self._log.flush()
        except OSError as error:
            if not self._log_fails:
                self._log_fails = True
                self.say(f"warning: {self._log.name} can't be written: {error.strerror}; training goes on")

    def _end_live(self) -> None:
        with self._lock:
            live, self._live = self._live, None
        if live is not None:
            with contextlib.suppress(OSError):
                live.close()


class EpochTable:
    """A line an epoch: for each block its training loss and its accuracy on the test or validation images, where the
    epoch had a test, and for each rank the share of its time in which it computes. Four blocks fit 80 columns."""

    def __init__(self, run: RunFacts) -> None:
        self._epochs = run.epochs
        self._width = max(5, 2 * len(str(run.epochs)) + 1)
        blocks, ranks = len(run.exits) + 1, run.ranks
        accuracy = f"{tested_on(run.config['dataset'])} accuracy %"
        self._groups = [("loss of block", 6, blocks), (accuracy, 6, blocks), ("busy %", 4, ranks)]

    def header(self) -> list[str]:
        """Two lines of titles."""
        titles = [[title] for title, _, _ in self._groups]
        numbers = [[f"{index:>{width}}" for index in range(count)] for _, width, count in self._groups]
        return [self._line("", "", titles), self._line("epoch", "image/s", numbers)]

    def row(self, record: Record) -> str:
        """One epoch."""
        trained = record["train"]["blocks"]
        tested = record["test"]["blocks"] if "test" in record else [None] * len(trained)
        rate = record["images_per_second"]
        cells = [
            [f"{short(block['loss']):>6}" for block in trained],
            [f"{100 * block['accuracy']:>6.1f}" if block else f"{'-':>6}" for block in tested],
            [f"{busy_percent(rank):>4}" for rank in record["ranks"]],
        ]
        return self._line(f"{record['epoch']}/{self._epochs}", f"{rate:.0f}" if rate else "-", cells)

    def _line(self, epoch: str, rate: str, groups: Sequence[Sequence[str]]) -> str:
        line = f"{epoch:>{self._width}}{rate:>8}"
        for cells, (title, width, count) in zip(groups, self._groups, strict=True):
            line += "".join(cells).rjust(max(width * count, len(title) + 1))
        return line


def busy_percent(rank: Record) -> str:
    """The share of its time that a rank computes, in percent, where it is known."""
    if rank["busy_seconds"] is None:
        return "-"
    total = rank["busy_seconds"] + rank["wait_seconds"]
    return f"{100 * rank['busy_seconds'] / total:.0f}" if total else "-"


def partition_table(partition: Partition) -> list[str]:
    """The blocks, their units, parameters and share of the cost."""
    total = sum(block.cost_seconds for block in partition.blocks)
    rows = [["block", "rank", "units", "parameters", "classifier", "cost"]]
    for index, block in enumerate(partition.blocks):
        units = (
            block.units[0] if len(block.units) == 1 else f"{block.units[0]} ... {block.units[-1]} ({len(block.units)})"
        )
        share = f"{100 * block.cost_seconds / total:.0f} %" if total else "-"
        rows.append(
            [str(index), str(block.rank), units, f"{block.parameters:,}", f"{block.classifier_parameters:,}", share]
        )
    return table(rows, left={2})


def summary_lines(record: Record, run: RunFacts) -> list[str]:
    """The result of a run in a few lines."""
    lines = []
    if record["exit_accuracies"]:
        lines += exit_lines(record["cut_points"], record["exit_accuracies"], record["tested_on"])
        lines.append(
            f"best epoch {100 * record['best_test_accuracy']:.2f} %, last epoch {100 * record['test_accuracy']:.2f} %"
        )
    if record["images_per_second"]:
        lines.append(
            f"{record['images_per_second']:.0f} images per second after the first {record['left_out_steps']} steps"
        )
        efficiency = record["pipeline_efficiency"]
        lines.append(
            f"pipeline efficiency {100 * efficiency:.0f} %" if efficiency is not None else f"({record['note']})"
        )
        if record.get("image_wait"):
            lines.append(_of_images(record["image_wait"]))
    return [*lines, f"run directory: {run.directory}"]


def _of_images(share: float) -> str:
    """How long the rank that reads images, or the slowest one that does, waits for them."""
    return f"{100 * share:.1f} % of a rank's time is waiting for images"
