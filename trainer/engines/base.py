"""What an engine is given, and what it gives back."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from trainer.checkpoint.keeper import Keeper
from trainer.checkpoint.start import Start
from trainer.clock import Clock
from trainer.data.augment import Augmentation
from trainer.data.images import Pictures
from trainer.data.mix import Mix
from trainer.errors import SettingError
from trainer.learner import Learner
from trainer.network import Network
from trainer.partition.partition import Partition
from trainer.plan import Plan
from trainer.rank import Rank
from trainer.reporting.reporter import Reporter
from trainer.schedules import Schedule
from trainer.stop import StopRequest
from trainer.update import MakeOptimizer, UpdateOptions


@dataclass(frozen=True, kw_only=True)
class StepOptions:
    """How a training step is done, whatever the engine.

    Attributes:
        precision: ``fp32`` or ``bf16``.
        compile: whether torch.compile makes the kernels.
        cuda_graphs: whether each block's training step is replayed as CUDA graphs.
        skip_bad_steps: whether the update of a step whose loss is not finite is left out, instead of ending the run.
        update: what an update does beyond the optimizer's step.
    """

    precision: str
    compile: bool
    cuda_graphs: bool
    skip_bad_steps: bool
    update: UpdateOptions

    def __post_init__(self) -> None:
        if self.skip_bad_steps and (self.update.accumulate > 1 or self.update.average):
            raise SettingError("on_nan=skip goes with neither update.accumulate nor update.average; use on_nan=stop")
        if self.cuda_graphs and self.update.accumulate > 1:
            raise SettingError("cuda_graphs=true does not go with update.accumulate; leave one of them out")


@dataclass
class Job:
    """Everything that a run is made of, on one rank. ``images`` are there only on the ranks that feed a model;
    ``start`` gives blocks the state that the run begins with; ``stop`` tells whether somebody asked for an early end;
    ``keeper`` makes the keeper of what this rank trains."""

    rank: Rank
    network: Network
    partition: Partition
    plan: Plan
    images: Pictures | None
    augment: list[Augmentation]
    mix: list[Mix]
    make_optimizer: MakeOptimizer
    schedule: Schedule
    options: StepOptions
    start: Start
    stop: StopRequest
    keeper: Callable[[Sequence[Learner]], Keeper]
    reporter: Reporter
    clock: Clock
    log_every: int


class Engine(Protocol):
    """A way to execute a run; its constructor takes the settings of its yaml.

    Attributes:
        queue_depth: slots of each send queue.
        end_to_end: whether the loss at the model's end trains all of it, so that no block has a local classifier.
    """

    queue_depth: int
    end_to_end: bool

    def replicas(self, world_size: int) -> int:
        """How many whole copies of the model there are, each shown its share of every batch."""
        ...

    def parts(self, world_size: int) -> int:
        """In how many parts the images of a step go through the model, side by side or one after the other."""
        ...

    def sees_waits(self, world_size: int) -> bool:
        """Whether every wait for another rank passes through the job's clock, and not inside a library."""
        ...

    def blocks(self, world_size: int) -> int:
        """How many blocks a model is cut into where the user says nothing. Raises ``SettingError`` where the engine
        can't run on so many ranks."""
        ...

    def place(self, seconds: Sequence[float], ranks: int) -> list[int]:
        """The rank of each block, of the ``ranks`` that share one copy of the model; ``seconds`` are the blocks' costs.
        Raises ``SettingError`` where such blocks can't be placed."""
        ...

    def check(self, rank: Rank, options: StepOptions) -> None:
        """Raise ``SettingError`` for options that the engine does not offer on these ranks."""
        ...

    def describe(self, rank: Rank, partition: Partition) -> str:
        """One sentence about how it runs."""
        ...

    def train(self, job: Job) -> dict[str, Tensor]:
        """Do the whole plan; this rank's part of the trained model under global names. Where several ranks have the
        same part, one of them gives it."""
        ...
