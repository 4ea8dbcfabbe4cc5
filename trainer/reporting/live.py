"""The live view on a terminal: one row a block, redrawn a few times a second by rank 0 alone."""

from typing import TextIO

from rich.console import Console as RichConsole
from rich.live import Live
from rich.table import Table

from trainer.data.images import tested_on
from trainer.reporting.records import Record, RunFacts
from trainer.reporting.tables import short

REDRAWS_PER_SECOND = 4


class LiveView:
    """A table of the blocks that stays at the bottom of the terminal."""

    def __init__(self, run: RunFacts, stream: TextIO) -> None:
        self._run = run
        self._step = 0
        self._rate: float | None = None
        self._blocks: list[Record] = [{} for _ in range(len(run.exits) + 1)]
        self._tests: list[Record] = [{} for _ in range(len(run.exits) + 1)]
        self._live = Live(
            self._draw(), console=RichConsole(file=stream), refresh_per_second=REDRAWS_PER_SECOND, transient=True
        )
        self._live.start()
        self._live.console.show_cursor(True)  # a rank that dies could not bring it back

    def step(self, record: Record) -> None:
        """Show a step."""
        self._step, self._rate, self._blocks = record["step"], record["images_per_second"], record["blocks"]
        self._live.update(self._draw())

    def epoch(self, record: Record) -> None:
        """Show the end of an epoch."""
        self._step = record["step"]
        if "test" in record:
            self._tests = record["test"]["blocks"]
        self._live.update(self._draw())

    def print(self, line: str) -> None:
        """Print a line above the view."""
        self._live.console.print(line, markup=False, highlight=False, soft_wrap=True)

    def close(self) -> None:
        """Take the view away."""
        self._live.stop()

    def _draw(self) -> Table:
        run = self._run
        epoch = min((self._step // run.steps_per_epoch) + 1, run.epochs)
        rate = "-" if self._rate is None else f"{self._rate:.0f}"
        title = f"epoch {epoch}/{run.epochs}  step {self._step}/{run.last_step}  {rate} images/s"
        view = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False)
        for name in ("block", "loss", "accuracy", tested_on(run.config["dataset"]), "busy"):
            view.add_column(name, justify="right", min_width=8)
        for index, (block, test) in enumerate(zip(self._blocks, self._tests, strict=True)):
            view.add_row(
                str(index),
                short(block["loss"]) if block else "-",
                f"{100 * block['accuracy']:.1f} %" if block and block["accuracy"] is not None else "-",
                f"{100 * test['accuracy']:.1f} %" if test else "-",
                f"{100 * block['busy']:.0f} %" if block and block["busy"] is not None else "-",
            )
        return view
