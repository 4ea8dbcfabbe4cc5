"""No tracker: nothing is written beyond the run directory's own files."""

from collections.abc import Mapping
from typing import Any

from trainer.reporting.records import Record, RunFacts


class NoTracker:
    """Does nothing."""

    def start(self, run: RunFacts) -> None:
        """Nothing."""

    def step(self, record: Record) -> None:
        """Nothing."""

    def epoch(self, record: Record) -> None:
        """Nothing."""

    def summary(self, record: Record) -> None:
        """Nothing."""

    def warning(self, text: str) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""

    def identity(self) -> dict[str, Any]:
        """Nothing."""
        return {}

    def go_on(self, identity: Mapping[str, Any]) -> None:
        """Nothing."""
