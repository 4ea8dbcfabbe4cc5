"""What a run begins with, as rank 0 finds it and every rank is told: the settings and the run directory decide."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from trainer.checkpoint.collector import remove_beyond
from trainer.checkpoint.manifest import MANIFEST, CheckpointError, DamagedError, IncompleteError
from trainer.checkpoint.reader import Checkpoint, Weights, newest
from trainer.errors import SettingError
from trainer.reporting.journal import cut
from trainer.rundir import RunDirectory

Decision = dict[str, Any]
"""What rank 0 found, as JSON for the other ranks: ``kind``, ``path``, ``warnings``, and of a checkpoint whether it is
the run's ``own``."""


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
