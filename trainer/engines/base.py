"""What an engine is given, and what it gives back."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from trainer.checkpoint.keeper import Watcher
from trainer.checkpoint.start import Start
from trainer.checkpoint.state import Trained
from trainer.clock import Clock
from trainer.data.augment import Augmentation
from trainer.data.images import Pictures
from trainer.data.mix import Mix
from trainer.network import Network
from trainer.partition.partition import Partition
from trainer.plan import Plan
from trainer.rank import Rank
from trainer.reporting.reporter import Reporter
from trainer.schedules import Schedule
from trainer.update import MakeOptimizer, UpdateOptions


@dataclass
class Job:
    """Everything that a run is made of, on one rank. ``images`` are there only on the ranks that feed a model;
    ``start`` gives blocks the state that the run begins with; ``keeper`` makes what is called between two steps."""

    rank: Rank
    network: Network
    partition: Partition
    plan: Plan
    images: Pictures | None
    augment: list[Augmentation]
    make_optimizer: MakeOptimizer
    schedule: Schedule
    reporter: Reporter
    clock: Clock
    precision: str
    log_every: int
    update_options: UpdateOptions
    mix: list[Mix]
    start: Start
    skip_bad_steps: bool
    keeper: Callable[[Sequence[Trained]], Watcher]
    compile: bool


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

    def blocks(self, world_size: int) -> int:
        """How many blocks a model is cut into where the user says nothing. Raises ``SettingError`` where the engine
        can't run on so many ranks."""
        ...

    def place(self, seconds: Sequence[float], ranks: int) -> list[int]:
        """The rank of each block, of the ``ranks`` that share one copy of the model; ``seconds`` are the blocks' costs.
        Raises ``SettingError`` where such blocks can't be placed."""
        ...

    def keeps(self, world_size: int) -> bool:
        """Whether a run on so many ranks keeps checkpoints, goes on from them, and ends at one step on a signal."""
        ...

    def describe(self, rank: Rank, partition: Partition) -> str:
        """One sentence about how it runs."""
        ...

    def train(self, job: Job) -> dict[str, Tensor]:
        """Do the whole plan; this rank's part of the trained model under global names. Where several ranks have the
        same part, one of them gives it."""
        ...
