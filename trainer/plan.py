"""The plan of a run: which mini-batches pass through the pipeline, in which order, and where it ends.

Every rank follows the same plan on its own, so it knows without asking what its next packet must be and whether there
is one. Only an *early* end is news: the first rank calls ``stop`` on its plan, the headers of its packets carry the
last step down the pipeline, and each rank calls ``stop`` in turn.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from trainer.errors import SettingError
from trainer.packet import OPEN_END, Kind, Tag


@dataclass(frozen=True)
class Share:
    """The part of every batch and of the test set that one of ``replicas`` copies of the model is shown."""

    replica: int = 0
    replicas: int = 1

    def of(self, size: int) -> slice:
        """This replica's run of ``range(size)``; the runs differ in length by one at most."""
        begin, end = (number * size // self.replicas for number in (self.replica, self.replica + 1))
        return slice(begin, end)


@dataclass(frozen=True)
class Phase:
    """One pass over a split: the training steps ``first`` to ``last`` of an epoch (none where a resumed run has done
    them all), or the test that follows."""

    kind: Kind
    epoch: int
    first: int
    last: int


class Plan:
    """Epochs of training steps with tests between them; steps and epochs count from 1.

    A short last training batch is dropped; a short last test batch is part of the plan, with its count.
    """

    def __init__(
        self,
        train_size: int,
        test_size: int,
        batch_size: int,
        epochs: int,
        max_steps: int | None = None,
        eval_every: int = 1,
        done: int = 0,
        share: Share = Share(),  # noqa: B008  # frozen
    ) -> None:
        """``done`` is the number of steps done before (0 in a new run). The sizes, in images, are those of all replicas
        together; ``share`` says which of the images come here. Raises ``SettingError`` where a batch can't be shared
        out evenly, or a replica would have nothing to test."""
        if batch_size % share.replicas:
            raise SettingError(
                f"the {batch_size} images of a step (batch_size / update.accumulate) can't be shared out evenly among "
                f"{share.replicas} ranks; they must be a multiple of {share.replicas}"
            )
        if test_size < share.replicas:
            raise SettingError(
                f"{test_size} test images are too few for {share.replicas} ranks, each of which tests its share; start "
                f"fewer ranks"
            )
        self.share = share
        self.whole_batch_size = batch_size
        self.batch_size = batch_size // share.replicas
        self.epochs = epochs
        self.steps_per_epoch = train_size // batch_size
        self.tested = share.of(test_size)
        self.test_size = self.tested.stop - self.tested.start
        self.test_batches = -(-self.test_size // self.batch_size)
        self.eval_every = eval_every
        self.done = done
        scheduled = epochs * self.steps_per_epoch
        self.last_step = min(scheduled, max_steps or scheduled)
        self.evaluate = True
        self.early_end = OPEN_END

    def stop(self, last_step: int, evaluate: bool) -> None:
        """End the run after ``last_step`` (or where it would have ended anyway), with a test of it or without."""
        if last_step < self.last_step:
            self.last_step = self.early_end = last_step
            self.evaluate = evaluate

    @property
    def stopped(self) -> bool:
        """Whether an early end has been decided."""
        return self.early_end != OPEN_END

    def tests_after(self, step: int) -> bool:
        """Whether a test follows step ``step``, which ends an epoch or the run."""
        if step == self.last_step:
            return self.evaluate
        return step // self.steps_per_epoch % self.eval_every == 0

    def phases(self) -> Iterator[Phase]:
        """The passes from here to the end, decided as they come so that an early end counts."""
        # A checkpoint is made before the test that follows its step, so the first epoch is that of the last step done,
        # even if only its test is left.
        step, epoch = self.done, max(1, -(-self.done // self.steps_per_epoch))
        while True:
            yield Phase(Kind.TRAIN, epoch, step + 1, epoch * self.steps_per_epoch)
            step = min(epoch * self.steps_per_epoch, self.last_step)
            if self.tests_after(step):
                yield Phase(Kind.TEST, epoch, 1, self.test_batches)
            if step == self.last_step:
                return
            epoch += 1

    def tags(self, phase: Phase) -> Iterator[Tag]:
        """The packets of one pass."""
        for step in range(phase.first, phase.last + 1):
            if phase.kind is Kind.TEST:
                yield Tag(Kind.TEST, step, min(self.batch_size, self.test_size - (step - 1) * self.batch_size))
            elif step <= self.last_step:
                yield Tag(Kind.TRAIN, step, self.batch_size)

    def all_tags(self) -> Iterator[Tag]:
        """The packets of all passes: what an edge carries in one run."""
        for phase in self.phases():
            yield from self.tags(phase)
