"""The run directory: which one, and the files in it."""

import fcntl
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainer.errors import SettingError
from trainer.files import write_text


@dataclass(frozen=True)
class RunDirectory:
    """A run's directory and the fixed names of its files."""

    path: Path

    @property
    def config(self) -> Path:
        """The whole resolved configuration."""
        return self.path / "config.yaml"

    @property
    def partition(self) -> Path:
        """Cut points, costs and placement."""
        return self.path / "partition.json"

    @property
    def metrics(self) -> Path:
        """One JSON object a line."""
        return self.path / "metrics.jsonl"

    @property
    def console(self) -> Path:
        """What the console showed."""
        return self.path / "console.log"

    @property
    def model(self) -> Path:
        """The trained weights."""
        return self.path / "model.safetensors"

    @property
    def checkpoints(self) -> Path:
        """What ``resume`` goes on from."""
        return self.path / "checkpoints"

    @classmethod
    def create(cls, given: str | None, stamp: str) -> "RunDirectory":
        """Make the directory that was given, or a new one under ``outputs/`` named after ``stamp``; on rank 0 only."""
        base = Path("outputs", stamp)
        try:
            if given is not None:
                path = Path(given).expanduser().absolute()
                path.mkdir(parents=True, exist_ok=True)
                return cls(path)
            base = base.absolute()
            base.parent.mkdir(parents=True, exist_ok=True)
            for attempt in range(1000):
                path = base if attempt == 0 else base.with_name(f"{base.name}-{attempt}")
                try:
                    path.mkdir()
                except FileExistsError:
                    continue
                return cls(path)
            raise SettingError(f"a thousand run directories named {base} exist already; give another output_dir")
        except OSError as error:
            raise SettingError(f"output_dir={given or base} can't be made: {error.strerror}") from error

    def lock(self, restarted: bool) -> int:
        """Keep other runs out of this directory until the file descriptor that this gives is closed, or the process
        ends, however it does. Raises ``SettingError`` where another run is there, unless this one was ``restarted``:
        then it is a process that the one before has left."""
        descriptor = os.open(self.path, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            if restarted:
                return descriptor
            os.close(descriptor)
            raise SettingError(
                f"output_dir={self.path} is in use by another run; wait until it has ended, or give another output_dir"
            ) from error
        except OSError:
            pass  # a file system that knows no locks
        return descriptor

    @classmethod
    def existing(cls, path: str | Path) -> "RunDirectory":
        """The directory of a run that wrote its model. Raises ``SettingError`` where something is missing."""
        directory = cls(Path(path).expanduser())
        try:
            if not directory.path.is_dir():
                raise SettingError(f"{path} is no directory; give the directory of a run")
            for file in (directory.config, directory.partition, directory.model):
                if not file.is_file():
                    raise SettingError(f"{path} has no {file.name}; give the directory of a run that has ended")
        except OSError as error:
            raise SettingError(f"{path} can't be read: {error.strerror}") from error
        return directory

    def write_json(self, path: Path, value: Any) -> None:
        """Write a JSON file whole or not at all."""
        write_text(path, json.dumps(value, indent=2) + "\n")
