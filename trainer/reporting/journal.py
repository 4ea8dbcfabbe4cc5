"""``metrics.jsonl``: one JSON object a line, on disk as it happens."""

import json
import logging
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from trainer.files import write_text
from trainer.reporting.listener import Listener
from trainer.reporting.records import Record

log = logging.getLogger(__name__)


class Journal(Listener):
    """Writes steps, epochs and the summary; ``config.yaml``, ``partition.json`` and ``console.log`` have the rest."""

    def __init__(self, path: Path) -> None:
        """Opens ``path`` for appending."""
        self._path = path
        self._file = path.open("a", encoding="utf-8")

    def step(self, record: Record) -> None:
        """One line of kind ``step``."""
        self._write(record)

    def epoch(self, record: Record) -> None:
        """One line of kind ``epoch``."""
        self._write(record)

    def summary(self, record: Record) -> None:
        """One line of kind ``summary``."""
        self._write(record)

    def close(self, failed: bool) -> None:
        """Close the file."""
        self._file.close()

    def _write(self, record: Record) -> None:
        if not self._path.exists():
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._path.open("a", encoding="utf-8")
            log.warning("%s was removed while the run writes it; it goes on with what follows", self._path)
        self._file.write(json.dumps(_plain(record), allow_nan=False) + "\n")
        self._file.flush()


def _plain(value: Any) -> Any:
    """A record as JSON can hold it: NaN and infinite numbers are null."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def cut(path: Path, source: Path, step: int) -> None:
    """Make ``path`` the metrics of a run that goes on after ``step``: of those in ``source``, what the checkpoint of
    that step is sure of. The epoch that ends there is reported again, after its test."""
    kept = [
        record
        for record in read(source)
        if (record.get("kind") == "step" and record["step"] <= step)
        or (record.get("kind") == "epoch" and record["step"] < step)
    ]
    write_text(path, "".join(json.dumps(record) + "\n" for record in kept))


def last_summary(path: Path) -> Record | None:
    """The summary of a run that has ended, or None."""
    records = list(read(path))
    return records[-1] if records and records[-1].get("kind") == "summary" else None


def read(path: Path) -> Iterator[Record]:
    """The records of a file; a line that was cut short when its writer was killed is left out."""
    if not path.is_file():
        return
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if isinstance(record, dict):
            yield record
