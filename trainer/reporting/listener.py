"""Who is told of a run: the console, the journal, the tracker."""

from collections.abc import Mapping
from typing import Any

from trainer.reporting.records import Record, RunFacts


class Listener:
    """Something on rank 0 that follows a run, and ignores what it has no method for. Of its methods one is called at a
    time, in the order of what happens, but not all from one thread."""

    def start(self, run: RunFacts) -> None:
        """The run begins."""

    def step(self, record: Record) -> None:
        """A logged step of every block."""

    def epoch(self, record: Record) -> None:
        """An epoch of every block is over."""

    def summary(self, record: Record) -> None:
        """The run is over."""

    def warning(self, text: str) -> None:
        """Something that a person should know."""

    def close(self, failed: bool) -> None:
        """Nothing follows; ``failed`` tells whether an error has ended the run."""


class Tracker(Listener):
    """A listener that keeps a run's metrics somewhere else, and goes on with the same run after a restart. What every
    listener has is called from a thread of the tracker's own, which may take its time; the rest from others."""

    def identity(self) -> dict[str, Any]:
        """What a checkpoint keeps of it: plain values, no secret; nothing by default. May be
        called before ``start`` is done."""
        return {}

    def resume(self, identity: Mapping[str, Any]) -> None:
        """Before ``start``: what ``identity`` gave in the run that is resumed; empty in a new run."""
