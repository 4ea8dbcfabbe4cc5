"""The run directory: which one, and the files in it."""

import json
import platform
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainer.errors import SettingError
from trainer.files import write_text

MARK_SECONDS = 10.0


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
        try:
            if given is not None:
                path = Path(given).expanduser().absolute()
                path.mkdir(parents=True, exist_ok=True)
                return cls(path)
            base = Path("outputs").absolute() / stamp
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

    @classmethod
    def existing(cls, path: str | Path) -> "RunDirectory":
        """The directory of a run that wrote its model. Raises ``SettingError`` where something is missing."""
        directory = cls(Path(path).expanduser())
        if not directory.path.is_dir():
            raise SettingError(f"{path} is no directory; give the directory of a run")
        for file in (directory.config, directory.partition, directory.model):
            if not file.is_file():
                raise SettingError(f"{path} has no {file.name}; give the directory of a run that has ended")
        return directory

    def mark(self) -> str:
        """On rank 0, where ranks are on several machines: leave a mark; gives what it says."""
        token = uuid.uuid4().hex
        write_text(self._mark, token)
        return token

    def find_mark(self, token: str, seconds: float = MARK_SECONDS) -> None:
        """On the other ranks: look for the mark for so many seconds, as network file systems show new files late.
        Raises ``SettingError`` where it does not appear: then this machine sees another directory of the same name, and
        could not go on from the checkpoints there."""
        end = time.monotonic() + seconds
        while not (self._mark.is_file() and self._mark.read_text() == token):
            if time.monotonic() > end:
                raise SettingError(
                    f"output_dir={self.path} is not shared: {platform.node()} does not see what rank 0 writes there; "
                    f"with several machines it must be on a file system that all of them share"
                )
            time.sleep(0.1)

    def unmark(self) -> None:
        """On rank 0: remove the mark."""
        self._mark.unlink(missing_ok=True)

    @property
    def _mark(self) -> Path:
        return self.path / ".shared"

    def write_json(self, path: Path, value: Any) -> None:
        """Write a JSON file whole or not at all."""
        write_text(path, json.dumps(value, indent=2) + "\n")
