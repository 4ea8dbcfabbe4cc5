"""Reading a checkpoint: checked first, then only what is asked for."""

import hashlib
from collections import defaultdict
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor

from trainer.checkpoint.manifest import (
    MANIFEST, CheckpointError, DamagedError, IncompleteError, Manifest, folders,
)  # fmt: skip


class Weights:
    """Tensors by name in one or several safetensors files; a tensor is read from the disk when it is asked for."""

    scalars: Mapping[str, Any] = {}

    def __init__(self, *files: Path) -> None:
        """Raises ``CheckpointError`` for a file that is no safetensors file or shares a name with another."""
        from safetensors import SafetensorError, safe_open

        self._where: dict[str, Any] = {}
        for file in files:
            try:
                opened = safe_open(file, framework="pt")
                names = list(opened.keys())
            except (OSError, SafetensorError, ValueError, MemoryError) as error:
                raise CheckpointError(f"{file} can't be read as a safetensors file: {_line(error)}") from error
            twice = self._where.keys() & set(names)
            if twice:
                raise CheckpointError(f"{file} holds {min(twice)}, which another file of the checkpoint holds too")
            self._where |= {name: (file, opened) for name in names}

    def __contains__(self, name: str) -> bool:
        return name in self._where

    def names(self) -> list[str]:
        """Every tensor's name."""
        return list(self._where)

    def shape(self, name: str) -> tuple[int, ...]:
        """A tensor's shape, which the head of its file tells."""
        _, opened = self._where[name]
        return tuple(opened.get_slice(name).get_shape())

    def close(self) -> None:
        """Let go of the files: while they are open the disk keeps them, although they are removed."""
        self._where = {}

    def read(self, name: str) -> Tensor:
        """A tensor, on the CPU. Raises ``CheckpointError``."""
        from safetensors import SafetensorError

        file, opened = self._where[name]
        try:
            tensor: Tensor = opened.get_tensor(name)
        except (OSError, SafetensorError, ValueError, RuntimeError, TypeError, AttributeError) as error:
            raise CheckpointError(f"{name} in {file} can't be read: {_line(error)}") from error
        return tensor


class Checkpoint(Weights):
    """A whole checkpoint."""

    def __init__(self, path: Path, manifest: Manifest) -> None:
        """``path`` is the checkpoint's folder; ``manifest`` the one in it."""
        super().__init__(*(path / part.file for part in manifest.parts))
        self.path, self.manifest = path, manifest
        self.scalars = manifest.scalars

    @classmethod
    def open(cls, path: Path) -> "Checkpoint":
        """The checkpoint in a folder, as its manifest says; see ``verify`` for whether that is true. Raises
        ``CheckpointError``."""
        return cls(path, _manifest(path))

    @classmethod
    def verify(cls, path: Path) -> "Checkpoint":
        """The same after every file was compared with its size and sum. Raises ``DamagedError``, and
        ``CheckpointError`` where a file may be whole but can't be read."""
        manifest = _manifest(path)
        for part in manifest.parts:
            _compare(path / part.file, part.bytes, part.sha256)
        return cls(path, manifest)

    @cached_property
    def optimizer_names(self) -> dict[str, list[str]]:
        """The names of the optimizer's state by parameter."""
        found: dict[str, list[str]] = defaultdict(list)
        for name in [*self.names(), *self.scalars]:
            if name.startswith("optimizer."):
                parameter, _, key = name.removeprefix("optimizer.").rpartition(".")
                found[parameter].append(key)
        return dict(found)


def _manifest(path: Path) -> Manifest:
    try:
        text = (path / MANIFEST).read_bytes()
    except FileNotFoundError as error:
        raise IncompleteError(f"{path} is incomplete: it has no {MANIFEST}") from error
    except OSError as error:
        raise CheckpointError(f"{path / MANIFEST} can't be read: {error.strerror}") from error
    return Manifest.from_json(text, path / MANIFEST)


def _compare(file: Path, size: int, digest: str) -> None:
    try:
        found = file.stat().st_size
        if found != size:
            raise DamagedError(f"{file} is damaged: it has {found} bytes instead of {size}")
        with file.open("rb") as opened:
            if hashlib.file_digest(opened, "sha256").hexdigest() != digest:
                raise DamagedError(f"{file} is damaged: its SHA-256 sum is not that of {MANIFEST}")
    except OSError as error:
        kind = DamagedError if isinstance(error, FileNotFoundError) else CheckpointError
        raise kind(f"{file} can't be read: {error.strerror}") from error


def newest(checkpoints: Path) -> tuple[Checkpoint | None, list[DamagedError]]:
    """The newest whole checkpoint in a run's folder, and what is wrong with each newer one. Raises ``CheckpointError``
    where that can't be told: a checkpoint that can't be read may be a good one."""
    damages: list[DamagedError] = []
    try:
        found = folders(checkpoints)
    except OSError as error:
        raise CheckpointError(f"{checkpoints} can't be read: {error.strerror}") from error
    for _, path in found:
        try:
            return Checkpoint.verify(path), damages
        except DamagedError as damage:
            damages.append(damage)
    return None, damages


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())
