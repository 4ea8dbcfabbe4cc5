"""What a run begins with: initial weights, given weights, or the state of a checkpoint."""

import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from trainer.checkpoint.changes import refuse_changes
from trainer.checkpoint.collector import remove_beyond
from trainer.checkpoint.manifest import MANIFEST, CheckpointError, DamagedError, IncompleteError
from trainer.checkpoint.reader import Checkpoint, Weights, newest
from trainer.checkpoint.state import Kept, fill_training, fill_weights
from trainer.errors import SettingError
from trainer.reporting.journal import cut
from trainer.reporting.records import Record
from trainer.rundir import RunDirectory

log = logging.getLogger(__name__)

Decision = dict[str, Any]
"""What rank 0 found, as JSON for the other ranks: ``kind``, ``path``, ``warnings``, and of a checkpoint whether it is
the run's ``own``."""


class Start(Protocol):
    """The state that a run begins with.

    Attributes:
        done: the number of steps done before.
        epochs: the records of the epochs before.
        tracker: what the tracker kept, to go on with its run.
    """

    done: int
    epochs: Sequence[Record]
    tracker: Mapping[str, Any]

    def describe(self) -> list[str]:
        """A sentence for people, if there is something to say."""
        ...

    def notes(self, cut_points: Sequence[str] | None) -> list[str]:
        """What a person should be warned of, where local losses train the model cut at ``cut_points``, or where none
        do (None)."""
        ...

    def check(self, config: Mapping[str, Any], data: Mapping[str, Any]) -> None:
        """Raise ``SettingError`` where a run with these settings and data can't begin so."""
        ...

    def cut_points(self, partition: Mapping[str, Any], blocks: int) -> list[str] | None:
        """The cut points to keep, for the settings of the group ``partition`` and a number of blocks, or None."""
        ...

    def fill(self, block: Kept) -> None:
        """Give a block its state."""
        ...


class Fresh:
    """Initial weights, which blocks have already."""

    done = 0
    epochs: Sequence[Record] = ()
    tracker: Mapping[str, Any] = {}

    def __init__(self, warnings: Sequence[str] = ()) -> None:
        """``warnings`` are those of the search for a checkpoint."""
        self._warnings = list(warnings)

    def describe(self) -> list[str]:
        """Nothing to say."""
        return []

    def notes(self, cut_points: Sequence[str] | None) -> list[str]:
        """The warnings of the search."""
        return self._warnings

    def check(self, config: Mapping[str, Any], data: Mapping[str, Any]) -> None:
        """Nothing to refuse."""

    def cut_points(self, partition: Mapping[str, Any], blocks: int) -> list[str] | None:
        """None."""
        return None

    def fill(self, block: Kept) -> None:
        """Nothing to give."""


class GivenWeights(Fresh):
    """The weights of a file, and nothing else."""

    def __init__(self, file: Path, warnings: Sequence[str] = ()) -> None:
        super().__init__(warnings)
        self._file, self._weights = file, Weights(file)

    def describe(self) -> list[str]:
        """Where the weights come from."""
        return [f"begins with the weights of {self._file}"]

    def fill(self, block: Kept) -> None:
        """The weights of the units, and of the classifier where the file has one for this cut."""
        if fill_weights(block, self._weights, str(self._file)):
            _announce(block, str(self._file))


class Resumed:
    """A checkpoint: the run goes on as if it had never stopped."""

    def __init__(self, checkpoint: Checkpoint, strict: bool, warnings: Sequence[str] = (), own: bool = True) -> None:
        """``strict`` refuses settings that would change the result; of a checkpoint that is another run's, not the
        run's ``own``, the tracker is not told."""
        manifest = checkpoint.manifest
        self._checkpoint, self._strict, self._warnings = checkpoint, strict, list(warnings)
        self.done = manifest.step
        self.epochs: Sequence[Record] = [dict(epoch) for epoch in manifest.epochs]
        self.tracker = manifest.tracker if own else {}

    def describe(self) -> list[str]:
        """Which checkpoint."""
        return [f"goes on after step {self.done}, from {self._checkpoint.path}"]

    def notes(self, cut_points: Sequence[str] | None) -> list[str]:
        """The warnings of the search, and that the model is cut elsewhere now."""
        before = self._checkpoint.manifest.cut_points
        if cut_points is None or before == list(cut_points):
            return self._warnings
        return [
            *self._warnings,
            f"the checkpoint's blocks end at [{','.join(before)}], now they end at [{','.join(cut_points)}], which is "
            f"another objective; partition.points=[{','.join(before)}] keeps the blocks, on any number of ranks",
        ]

    def check(self, config: Mapping[str, Any], data: Mapping[str, Any]) -> None:
        """Refuse changed settings or data, and an end that lies behind."""
        manifest, origin = self._checkpoint.manifest, str(self._checkpoint.path)
        if self._strict:
            refuse_changes(manifest.config, config, manifest.data, data, origin)
        if config["max_steps"] is not None and config["max_steps"] < self.done:
            raise SettingError(
                f"max_steps={config['max_steps']} lies before step {self.done}, from where {origin} goes on; set at "
                f"least max_steps={self.done}, or begin anew in another output_dir"
            )

    def cut_points(self, partition: Mapping[str, Any], blocks: int) -> list[str] | None:
        """Those of the checkpoint where the settings ask for the same: measured times may differ from start to start,
        the cuts of one run may not."""
        manifest = self._checkpoint.manifest
        same = manifest.config.get("partition") == partition and len(manifest.cut_points) + 1 == blocks
        return manifest.cut_points if same else None

    def fill(self, block: Kept) -> None:
        """Weights, optimizer and running sums."""
        origin = str(self._checkpoint.path)
        fresh = fill_weights(block, self._checkpoint, origin)
        if fresh:
            _announce(block, origin)
        fill_training(block, self._checkpoint, self._checkpoint.optimizer_names, fresh)
        names = [name for name in self._checkpoint.names() if name.startswith("published.")]
        block.resume_exchange(self.done, {name: self._checkpoint.read(name) for name in names})


def _announce(block: Kept, origin: str) -> None:
    log.warning(
        "the local classifier behind %s starts with initial weights: %s has none for this cut", block.cut, origin
    )


def decide(resume: str, init_from: str | None, output_dir: Path | None, restarted: bool) -> Decision:
    """On rank 0: what the run begins with.

    Args:
        resume: the setting.
        init_from: the setting.
        output_dir: the run directory, where it is known already.
        restarted: whether the launcher started this run again; it then goes on from its own checkpoint, whatever the
            settings said about how to begin.

    Raises:
        SettingError: the settings contradict what is there, or nobody can tell what is there.
    """
    if init_from is not None and resume not in ("auto", "never"):
        raise SettingError(f"init_from={init_from} and resume={resume} both say what to begin with; leave one out")
    own, damages = newest(output_dir / "checkpoints") if output_dir is not None else (None, [])
    if own is None:
        _refuse_to_lose(damages, output_dir)
    elif restarted or resume == "auto":
        return _from(own, damages)
    if resume not in ("auto", "never"):
        given, damages_there = _given(resume)
        if own is not None and given.path.parent.resolve() != own.path.parent.resolve():
            raise SettingError(
                f"resume={resume}, but output_dir={output_dir} has a checkpoint of step {own.manifest.step} of its "
                f"own; give another output_dir, or resume=auto to go on from that one"
            )
        return _from(given, damages_there, own is not None)
    if own is not None:
        raise SettingError(
            f"resume=never, but output_dir={output_dir} has a checkpoint of step {own.manifest.step}; give another "
            f"output_dir, or resume=auto to go on"
        )
    warnings = [f"{damage}; the run begins anew" for damage in damages]
    if init_from is not None:
        return {"kind": "weights", "path": str(_weights_file(init_from)), "warnings": warnings}
    return {"kind": "fresh", "path": None, "warnings": warnings}


def _from(checkpoint: Checkpoint, damages: Sequence[DamagedError], own: bool = True) -> Decision:
    """Go on from a checkpoint, the newest but for those that are damaged."""
    warnings = [f"{damage}; the checkpoint before it is taken" for damage in damages]
    return {"kind": "resume", "path": str(checkpoint.path), "warnings": warnings, "own": own}


def _refuse_to_lose(damages: Sequence[DamagedError], output_dir: Path | None) -> None:
    """Where a run directory has no whole checkpoint: raise ``SettingError`` unless nothing would be lost by beginning
    anew, because the run was ended before it had one."""
    if output_dir is not None and not damages and RunDirectory(output_dir).model.is_file():
        raise SettingError(
            f"output_dir={output_dir} has the model of a run that has ended, but no checkpoint to go on from; give "
            f"another output_dir, or remove model.safetensors to begin anew there"
        )
    lost = [damage for damage in damages if not isinstance(damage, IncompleteError)]
    if lost:
        raise SettingError(
            f"{lost[0]}, and no checkpoint before it is whole; remove the checkpoints to begin anew, or give another "
            f"output_dir"
        )


def start_of(decision: Decision, strict: bool) -> Start:
    """On every rank: what rank 0 decided. Raises ``CheckpointError`` where this rank can't read it."""
    warnings = decision["warnings"]
    match decision["kind"]:
        case "resume":
            return Resumed(Checkpoint.open(Path(decision["path"])), strict, warnings, decision["own"])
        case "weights":
            return GivenWeights(Path(decision["path"]), warnings)
    return Fresh(warnings)


def begin(directory: RunDirectory, decision: Decision) -> bool:
    """On rank 0, before the first step: remove from the run directory what lies beyond the checkpoint, which is what
    ``decide`` has found damaged or the user has gone back from. True, for ``Control.agree``. Raises ``SettingError``
    where nothing can be written there."""
    origin = Path(decision["path"]) if decision["kind"] == "resume" else None
    step = 0 if origin is None else Checkpoint.open(origin).manifest.step
    metrics = directory.metrics if origin is None else origin.parents[1] / directory.metrics.name
    remove_beyond(directory.checkpoints, step)
    try:
        cut(directory.metrics, metrics, step)
    except OSError as error:
        raise SettingError(f"output_dir={directory.path} can't be written: {error.strerror}") from error
    return True


def _given(resume: str) -> tuple[Checkpoint, list[DamagedError]]:
    """The checkpoint at a path, or the newest one of the run at a path, and what is wrong with newer ones."""
    path = Path(resume).expanduser().absolute()
    if os.path.isfile(path / MANIFEST):
        return Checkpoint.verify(path), []
    found, damages = newest(path / "checkpoints")
    if found is None:
        why = f": {damages[0]}" if damages else ""
        raise CheckpointError(
            f"resume={resume} is neither a run with a whole checkpoint nor a checkpoint{why}; it must be auto, never, "
            f"or the path of one"
        )
    return found, damages


def _weights_file(init_from: str) -> Path:
    path = Path(init_from).expanduser().absolute()
    file = path / "model.safetensors" if path.is_dir() else path
    if not file.is_file():
        raise SettingError(
            f"init_from={init_from} must be a .safetensors file or the directory of a run that has ended"
        )
    Weights(file)
    return file
