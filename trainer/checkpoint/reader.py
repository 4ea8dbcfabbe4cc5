"""Reading a checkpoint: checked first, then only what is asked for."""

import hashlib
from collections import defaultdict
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor

from trainer.checkpoint.manifest import MANIFEST, CheckpointError, Manifest, folders


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
        try:
            text = (path / MANIFEST).read_bytes()
        except OSError as error:
            raise CheckpointError(f"{path} is no whole checkpoint: it has no {MANIFEST}") from error
        return cls(path, Manifest.from_json(text, path / MANIFEST))

    @classmethod
    def verify(cls, path: Path) -> "Checkpoint":
        """The same after every file was compared with its size and sum. Raises ``CheckpointError``."""
        try:
            text = (path / MANIFEST).read_bytes()
        except OSError as error:
            raise CheckpointError(f"{path} is incomplete: it has no {MANIFEST}") from error
        manifest = Manifest.from_json(text, path / MANIFEST)
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


def _compare(file: Path, size: int, digest: str) -> None:
    try:
        found = file.stat().st_size
        if found != size:
            raise CheckpointError(f"{file} is damaged: it has {found} bytes instead of {size}")
        with file.open("rb") as opened:
            if hashlib.file_digest(opened, "sha256").hexdigest() != digest:
                raise CheckpointError(f"{file} is damaged: its SHA-256 sum is not that of {MANIFEST}")
    except OSError as error:
        raise CheckpointError(f"{file} can't be read: {error.strerror}") from error


def newest(checkpoints: Path) -> tuple[Checkpoint | None, list[str]]:
    """The newest whole checkpoint in a run's folder, and a sentence for each newer one that is not whole."""
    warnings: list[str] = []
    for _, path in folders(checkpoints):
        try:
            return Checkpoint.verify(path), warnings
        except CheckpointError as error:
            warnings.append(f"{error}; the checkpoint before it is taken")
    return None, warnings


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())
