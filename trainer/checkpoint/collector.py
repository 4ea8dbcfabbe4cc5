"""Rank 0's side of a checkpoint: the manifest is written when the parts of all ranks are there."""

import contextlib
import shutil
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainer.checkpoint.manifest import MANIFEST, Manifest, Part, folder_of, folders
from trainer.files import write_text
from trainer.reporting.records import Record


@dataclass(frozen=True)
class RunIdentity:
    """What a checkpoint says of its run."""

    config: Mapping[str, Any]
    data: Mapping[str, Any]
    partition: Mapping[str, Any]


class Collector:
    """Called on the board's thread."""

    def __init__(
        self,
        checkpoints: Path,
        world_size: int,
        keep: int,
        identity: RunIdentity,
        tracker: Callable[[], dict[str, Any]],
    ) -> None:
        """Of the whole checkpoints the newest ``keep`` stay; ``tracker`` gives what the tracker wants kept."""
        self._checkpoints, self._world_size, self._keep = checkpoints, world_size, keep
        self._identity, self._tracker = identity, tracker
        self._parts: dict[int, list[Record]] = defaultdict(list)

    def take(self, record: Record, epochs: Sequence[Record]) -> str | None:
        """A part was written, or could not be. Gives a warning, or None."""
        step = record["step"]
        parts = self._parts[step]
        parts.append(record)
        if len(parts) < self._world_size:
            return None
        del self._parts[step]
        failures = [part["error"] for part in parts if "error" in part]
        try:
            if failures:
                raise OSError(None, failures[0])
            self._write(step, parts, epochs)
        except OSError as error:
            remove(folder_of(self._checkpoints, step))  # room for the next one
            return (
                f"there is no checkpoint of step {step}: {error.strerror or error}; training goes on, and the "
                f"checkpoint before it stays"
            )
        try:
            self._prune(step)
        except OSError as error:
            return f"checkpoints before step {step} could not be removed: {error.strerror or error}; training goes on"
        return None

    def _write(self, step: int, parts: Sequence[Record], epochs: Sequence[Record]) -> None:
        manifest = Manifest(
            step,
            sorted((Part(**part["part"]) for part in parts), key=lambda part: part.file),
            self._identity.config,
            self._identity.data,
            self._identity.partition,
            [epoch for epoch in epochs if epoch["step"] < step],  # the one that ends here is tested again
            {name: value for part in parts for name, value in part["scalars"].items()},
            self._tracker(),
        )
        path = folder_of(self._checkpoints, step) / MANIFEST
        try:
            write_text(path, manifest.to_json())
        except OSError as error:
            raise OSError(error.errno, f"{path} could not be written: {error.strerror}") from error

    def _prune(self, newest: int) -> None:
        """Remove what is older than the ``keep`` newest whole checkpoints; of parts without a manifest, all that are
        older than the one just written."""
        whole = 0
        for step, path in folders(self._checkpoints):
            if step > newest:
                continue
            is_whole = (path / MANIFEST).is_file()
            whole += is_whole
            if not is_whole or whole > self._keep:
                remove(path)


def remove(path: Path) -> None:
    """Remove a checkpoint as far as it can be, its manifest first, so that it is never taken for whole in between."""
    with contextlib.suppress(OSError):
        (path / MANIFEST).unlink()
    shutil.rmtree(path, ignore_errors=True)


def remove_beyond(checkpoints: Path, step: int) -> None:
    """Remove every checkpoint after ``step``: what a run that goes on from there has not done."""
    for found, path in folders(checkpoints):
        if found > step:
            remove(path)
