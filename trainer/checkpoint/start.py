"""The state that a run begins with: initial weights, given weights, or that of a checkpoint."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from trainer.checkpoint.changes import changes, other_training, refuse_changes
from trainer.checkpoint.decide import Decision
from trainer.checkpoint.reader import Checkpoint, Weights
from trainer.checkpoint.state import fill_training, fill_weights
from trainer.errors import SettingError
from trainer.learner import Learner
from trainer.reporting.records import Record
from trainer.units import Units, named_state
from trainer.update import AVERAGE

log = logging.getLogger(__name__)


class Start(Protocol):
    """The state that a run begins with.

    Attributes:
        done: the number of steps done before.
        epochs: the records of the epochs before.
        tracker: what the tracker kept, to go on with its run.
        has_weights: whether it gives all of the model's weights, so that others need not be fetched.
    """

    done: int
    has_weights: bool
    epochs: Sequence[Record]
    tracker: Mapping[str, Any]

    def describe(self) -> list[str]:
        """A sentence for people, if there is something to say."""
        ...

    def notes(self, cut_points: Sequence[str] | None) -> list[str]:
        """What a person should be warned of, where local losses train the model cut at ``cut_points``, or where none
        do (None)."""
        ...

    def check(self, data: Mapping[str, Any]) -> None:
        """Raise ``SettingError`` where a run with its settings and these data can't begin so."""
        ...

    def changed(self, cut_points: Sequence[str]) -> list[str]:
        """What has changed since, where the model is cut at ``cut_points`` now, as ``name=value (was value)``."""
        ...

    def check_model(self, units: Units) -> None:
        """Raise ``SettingError`` where the model, by its units, is not the one that the weights are of."""
        ...

    def cut_points(self, blocks: range) -> list[str] | None:
        """The cut points to keep, for the numbers of blocks that these ranks can have, or None."""
        ...

    def fill(self, learner: Learner) -> None:
        """Give a learner its state."""
        ...

    def release(self) -> None:
        """Let go of the files, once every learner of this rank is filled."""
        ...


class Fresh:
    """Initial weights, which learners have already."""

    done = 0
    has_weights = False
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

    def check(self, data: Mapping[str, Any]) -> None:
        """Nothing to refuse."""

    def changed(self, cut_points: Sequence[str]) -> list[str]:
        """Nothing to compare with."""
        return []

    def check_model(self, units: Units) -> None:
        """Nothing to compare it with."""

    def cut_points(self, blocks: range) -> list[str] | None:
        """None."""
        return None

    def fill(self, learner: Learner) -> None:
        """Nothing to give."""

    def release(self) -> None:
        """Nothing to let go of."""


class GivenWeights(Fresh):
    """The weights of a file, and nothing else."""

    has_weights = True

    def __init__(self, file: Path, warnings: Sequence[str] = ()) -> None:
        super().__init__(warnings)
        self._file, self._weights = file, Weights(file)

    def check_model(self, units: Units) -> None:
        """Compare names and shapes."""
        check_fit(self._weights, units, f"init_from={self._file}")

    def release(self) -> None:
        """Close the file."""
        self._weights.close()

    def describe(self) -> list[str]:
        """Where the weights come from."""
        return [f"begins with the weights of {self._file}"]

    def fill(self, learner: Learner) -> None:
        """The weights of the units, and of the classifier where the file has one for this cut."""
        if fill_weights(learner, self._weights, str(self._file)):
            _announce(learner, str(self._file))


class Resumed:
    """A checkpoint: the run goes on as if it had never stopped."""

    has_weights = True

    def __init__(
        self, checkpoint: Checkpoint, config: Mapping[str, Any], warnings: Sequence[str] = (), own: bool = True
    ) -> None:
        """To go on with the settings ``config``; of a checkpoint that is another run's, not the run's ``own``, the
        tracker is not told."""
        manifest = checkpoint.manifest
        self._checkpoint, self._config, self._warnings = checkpoint, config, list(warnings)
        self.done = manifest.step
        self.epochs: Sequence[Record] = [dict(epoch) for epoch in manifest.epochs]
        self.tracker = manifest.tracker if own else {}
        self._changed = changes(manifest.config, config)
        self._other = other_training(manifest.config, config)

    def describe(self) -> list[str]:
        """Which checkpoint."""
        return [f"goes on after step {self.done}, from {self._checkpoint.path}"]

    def notes(self, cut_points: Sequence[str] | None) -> list[str]:
        """The warnings of the search, and that the model is cut elsewhere now."""
        before = self._checkpoint.manifest.cut_points
        warnings = [*self._warnings, *(f"{engine}: from here on the training is another" for engine in self._other)]
        if cut_points is None or before == list(cut_points):
            return warnings
        return [
            *warnings,
            f"the checkpoint's blocks end at [{','.join(before)}], now they end at [{','.join(cut_points)}], which is "
            f"another objective; partition.points=[{','.join(before)}] keeps the blocks, on any number of ranks",
        ]

    def check(self, data: Mapping[str, Any]) -> None:
        """Refuse settings or data that would change the result, unless that is allowed, and an end that lies behind."""
        origin, max_steps = str(self._checkpoint.path), self._config["max_steps"]
        if self._config["resume_strict"]:
            refuse_changes(self._changed, self._checkpoint.manifest.data, data, origin)
        if max_steps is not None and max_steps < self.done:
            raise SettingError(
                f"max_steps={max_steps} lies before step {self.done}, from where {origin} goes on; set at least "
                f"max_steps={self.done}, or begin anew in another output_dir"
            )

    def changed(self, cut_points: Sequence[str]) -> list[str]:
        """Settings that decide the result, the engine where it trains in another way, and cut points."""
        before = self._checkpoint.manifest.cut_points
        points = f"partition.points=[{','.join(cut_points)}] (was [{','.join(before)}])"
        return [*self._changed, *self._other, *([] if list(cut_points) == before else [points])]

    def check_model(self, units: Units) -> None:
        """Compare names and shapes."""
        check_fit(self._checkpoint, units, str(self._checkpoint.path))

    def release(self) -> None:
        """Close the files."""
        self._checkpoint.close()

    def cut_points(self, blocks: range) -> list[str] | None:
        """Those of the checkpoint where the settings ask for the same: measured times may differ from start to start,
        and so may the number of ranks, the cuts of one run may not."""
        manifest = self._checkpoint.manifest
        same = manifest.config.get("partition") == self._config["partition"] and len(manifest.cut_points) + 1 in blocks
        return manifest.cut_points if same else None

    def fill(self, learner: Learner) -> None:
        """Weights, optimizer and running sums."""
        origin, before = str(self._checkpoint.path), self._checkpoint.manifest.config
        fresh = fill_weights(learner, self._checkpoint, origin)
        if fresh:
            _announce(learner, origin)
        kept = self._checkpoint.optimizer_names
        if _kind(before["optimizer"]) != _kind(self._config["optimizer"]):
            log.warning("the optimizer begins without a state: %s has that of another one", origin)
            kept = {name: [key for key in keys if key == AVERAGE] for name, keys in kept.items()}
        same_batches = before["update"].get("accumulate") == self._config["update"]["accumulate"]
        fill_training(learner, self._checkpoint, kept, fresh, same_batches)
        names = [name for name in self._checkpoint.names() if name.startswith("published.")]
        learner.resume_exchange(self.done, {name: self._checkpoint.read(name) for name in names})


def check_fit(weights: Weights, units: Units, origin: str) -> None:
    """Raise ``SettingError`` where ``weights``, which people know as ``origin``, lack a value of the model or have one
    of another shape."""
    for name, value in named_state(units).items():
        found = weights.shape(name) if name in weights else None
        if found != tuple(value.shape):
            has = f"has {name} of shape {found}" if found is not None else f"has no {name}"
            raise SettingError(
                f"{origin} {has}, but the model wants it of shape {tuple(value.shape)}; its weights fit only a model "
                f"with the same settings and the same number of classes"
            )


def _kind(optimizer: Mapping[str, Any]) -> dict[str, Any]:
    """What decides which state an optimizer keeps: its class and its switches, but no numbers."""
    return {key: value for key, value in optimizer.items() if isinstance(value, bool | str)}


def _announce(learner: Learner, origin: str) -> None:
    log.warning(
        "the local classifier after %s starts with initial weights: %s has none that fits", learner.cut, origin
    )


def start_of(decision: Decision, config: Mapping[str, Any]) -> Start:
    """On every rank: what rank 0 decided, for a run with the settings ``config``. Raises ``CheckpointError`` where this
    rank can't read it."""
    warnings = decision["warnings"]
    match decision["kind"]:
        case "resume":
            return Resumed(Checkpoint.open(Path(decision["path"])), config, warnings, decision["own"])
        case "weights":
            return GivenWeights(Path(decision["path"]), warnings)
    return Fresh(warnings)
