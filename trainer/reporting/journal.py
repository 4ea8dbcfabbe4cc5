"""``metrics.jsonl``: one JSON object a line, on disk as it happens."""

import json
from pathlib import Path

from trainer.reporting.records import Record, RunFacts


class Journal:
    """Writes steps, epochs and the summary."""

    def __init__(self, path: Path) -> None:
        """Opens ``path`` for appending."""
        self._file = path.open("a", encoding="utf-8")

    def start(self, run: RunFacts) -> None:
        """Nothing: ``config.yaml`` and ``partition.json`` hold it."""

    def step(self, record: Record) -> None:
        """One line of kind ``step``."""
        self._write(record)

    def epoch(self, record: Record) -> None:
        """One line of kind ``epoch``."""
        self._write(record)

    def summary(self, record: Record) -> None:
        """One line of kind ``summary``."""
        self._write(record)

    def warning(self, text: str) -> None:
        """Nothing: ``console.log`` has warnings."""

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _write(self, record: Record) -> None:
        self._file.write(json.dumps(record) + "\n")
        self._file.flush()
