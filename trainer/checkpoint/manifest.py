"""The manifest of a checkpoint: the one file that says that it is whole."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from trainer.errors import SettingError

FORMAT = 2
"""Raised when a reader of the old format could not read the new one."""

MANIFEST = "manifest.json"

_PART_NAME = re.compile(r"rank-[0-9]+\.safetensors")
_SUM = re.compile(r"[0-9a-f]{64}")
_FOLDER_NAME = re.compile(r"step-([0-9]{1,18})")


class CheckpointError(SettingError):
    """A checkpoint can't be used here and now, or is not one of this run. Names it and what is wrong."""


class DamagedError(CheckpointError):
    """A checkpoint is damaged: nobody can ever use it, and the one before it may be taken."""


class IncompleteError(DamagedError):
    """A checkpoint has no manifest: the run was ended while it was written."""


@dataclass(frozen=True)
class Part:
    """A file of a checkpoint."""

    file: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """What a checkpoint holds beside its tensors.

    Attributes:
        step: the number of steps done. Learning rate, order of the images and all random draws follow from it.
        parts: the files, one a rank.
        config: the whole resolved configuration of the run.
        data: the facts about the images (``DataSpec``).
        partition: the cut points and their blocks, as in ``partition.json``.
        epochs: the records of the epochs that were over.
        scalars: optimizer state that is no tensor, by name.
        tracker: what the tracker needs to go on with the same run, such as W&B's run id.
    """

    step: int
    parts: Sequence[Part]
    config: Mapping[str, Any]
    data: Mapping[str, Any]
    partition: Mapping[str, Any]
    epochs: Sequence[Mapping[str, Any]] = ()
    scalars: Mapping[str, Any] = field(default_factory=dict)
    tracker: Mapping[str, Any] = field(default_factory=dict)

    @property
    def cut_points(self) -> list[str]:
        """The units after which the model was cut."""
        return list(self.partition["cut_points"])

    def to_json(self) -> str:
        """The manifest's text."""
        return json.dumps({"format": FORMAT, **asdict(self)}, indent=1) + "\n"

    @classmethod
    def from_json(cls, text: bytes, origin: Path) -> "Manifest":
        """Read a manifest's text; ``origin`` names it in errors. Raises ``DamagedError``, and ``CheckpointError`` where
        the text is of another format."""
        try:
            value = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise DamagedError(f"{origin} is no JSON: {error}") from error
        if not isinstance(value, dict) or not isinstance(value.get("format"), int):
            raise DamagedError(f"{origin} is no checkpoint manifest: it names no format")
        if (found := value.pop("format")) != FORMAT:
            raise CheckpointError(
                f"{origin} has format {found}, but this version of the trainer reads format {FORMAT} alone; go on with "
                f"the version that wrote it, or begin anew in another output_dir"
            )
        _check_kinds(value, origin)
        parts = [_part(entry, origin) for entry in value.pop("parts")]
        if not parts or len({part.file for part in parts}) != len(parts):
            raise DamagedError(f"{origin} must name each of its files once")
        return cls(parts=parts, **value)


_KINDS: dict[str, type] = {
    "step": int,
    "parts": list,
    "config": dict,
    "data": dict,
    "partition": dict,
    "epochs": list,
    "scalars": dict,
    "tracker": dict,
}


def _check_kinds(value: dict[str, Any], origin: Path) -> None:
    if set(value) != set(_KINDS):
        raise DamagedError(f"{origin} must have exactly the entries format, {', '.join(_KINDS)}")
    for name, kind in _KINDS.items():
        if not isinstance(value[name], kind) or isinstance(value[name], bool):
            raise DamagedError(f"{origin}: {name} must be a {kind.__name__}")
    if value["step"] < 1:
        raise DamagedError(f"{origin}: step={value['step']} must be at least 1")
    cuts = value["partition"].get("cut_points")
    if not isinstance(cuts, list) or not all(isinstance(cut, str) for cut in cuts):
        raise DamagedError(f"{origin}: partition.cut_points must be a list of unit names")
    if not all(isinstance(epoch, dict) and isinstance(epoch.get("step"), int) for epoch in value["epochs"]):
        raise DamagedError(f"{origin}: epochs must be records with a step")


def _part(entry: Any, origin: Path) -> Part:
    """A file's entry. Its name must be one that a rank writes: a manifest never points out of its own folder."""
    if not isinstance(entry, dict) or set(entry) != {"file", "bytes", "sha256"}:
        raise DamagedError(f"{origin}: each of parts must have file, bytes and sha256")
    name, size, digest = entry["file"], entry["bytes"], entry["sha256"]
    if not isinstance(name, str) or not _PART_NAME.fullmatch(name):
        raise DamagedError(f"{origin}: {name!r} is no name of a checkpoint's file")
    if not isinstance(size, int) or not isinstance(digest, str) or not _SUM.fullmatch(digest):
        raise DamagedError(f"{origin}: {name} must have a size in bytes and a SHA-256 sum")
    return Part(name, size, digest)


def folder_of(checkpoints: Path, step: int) -> Path:
    """The folder of the checkpoint of a step."""
    return checkpoints / f"step-{step:08d}"


def folders(checkpoints: Path) -> list[tuple[int, Path]]:
    """The step and the folder of each checkpoint, whole or not, the newest first. Raises ``OSError`` where nobody can
    tell."""
    try:
        paths = list(checkpoints.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []
    found = []
    for path in paths:
        match = _FOLDER_NAME.fullmatch(path.name)
        if match and path.is_dir():
            found.append((int(match[1]), path))
    return sorted(found, reverse=True)
