"""A rank's part of the checkpoints: its state is copied between two training steps, and written meanwhile."""

import hashlib
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import save

from trainer.checkpoint.manifest import Part, folder_of
from trainer.checkpoint.snapshot import Snapshot
from trainer.checkpoint.state import scalars_of, tensors_of
from trainer.files import write_whole
from trainer.hostcopy import HostCopy
from trainer.learner import Learner
from trainer.losswatch import all_finite
from trainer.plan import Plan
from trainer.reporting.records import Record
from trainer.reporting.reporter import Reporter


@dataclass(frozen=True)
class Rhythm:
    """When a checkpoint is due: every so many steps, every so many epochs (None for never), and after the last step
    of the run."""

    every_steps: int | None
    every_epochs: int | None

    def due(self, step: int, plan: Plan) -> bool:
        """Whether step number ``step`` is followed by a checkpoint."""
        epoch, inside = divmod(step, plan.steps_per_epoch)
        return (
            step == plan.last_step
            or (self.every_steps is not None and step % self.every_steps == 0)
            or (self.every_epochs is not None and inside == 0 and epoch % self.every_epochs == 0)
        )


class Keeper:
    """One rank's. No rank waits for another: each saves when it has finished the step, and rank 0 writes the manifest
    when it has heard of every part (``Collector``)."""

    def __init__(
        self, learners: Sequence[Learner], plan: Plan, rhythm: Rhythm, checkpoints: Path, rank: int, reporter: Reporter
    ) -> None:
        """``checkpoints`` is the folder of all checkpoints of the run."""
        self._learners, self._plan, self._rhythm = learners, plan, rhythm
        self._checkpoints, self._rank, self._reporter = checkpoints, rank, reporter
        self._snapshot = Snapshot()
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._written: Future[None] | None = None

    def trained(self, step: int) -> None:
        """Training step ``step`` is done on this rank."""
        if self._rhythm.due(step, self._plan):
            self._save(step)

    def close(self) -> None:
        """Wait until everything is written."""
        self._wait()
        self._writer.shutdown()

    def _save(self, step: int) -> None:
        """Copy the state here; a thread does the rest."""
        self._wait()
        self._snapshot.take({name: value for learner in self._learners for name, value in tensors_of(learner).items()})
        scalars = {name: value for learner in self._learners for name, value in scalars_of(learner).items()}
        losses = [loss for learner in self._learners for loss in learner.unseen_losses()]
        trained = {name for learner in self._learners for name in learner.update.parameters}
        self._written = self._writer.submit(self._write, step, scalars, losses, trained)

    def _write(self, step: int, scalars: dict[str, Any], losses: Sequence[HostCopy], trained: set[str]) -> None:
        """Write this rank's part, and tell rank 0 of it or of why it is not there. Where one of the ``losses`` before
        it, or a weight under the names ``trained``, was not finite there is none, and so no checkpoint of this step:
        the training thread, which sees losses on CUDA some steps later and weights by the next loss, is about to end
        the run."""
        tensors = self._snapshot.wait()
        if not all_finite(loss.wait() for loss in losses):
            return
        if not all_finite(tensor for name, tensor in tensors.items() if name in trained):
            return
        file = folder_of(self._checkpoints, step) / f"rank-{self._rank}.safetensors"
        record: Record = {"kind": "checkpoint", "step": step}
        content = save(tensors)
        try:
            write_whole(file, content)
        except OSError as error:
            record["error"] = f"{file} could not be written: {error.strerror or error}"
        else:
            part = Part(file.name, len(content), hashlib.sha256(content).hexdigest())
            record |= {"part": asdict(part), "scalars": scalars}
        self._reporter.post(lambda: record)

    def _wait(self) -> None:
        if self._written is not None:
            self._written.result()
            self._written = None
