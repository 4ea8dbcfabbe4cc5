"""What an engine is given, and what it gives back."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from trainer.checkpoint.keeper import Keeper
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
    keeper: Callable[[Sequence[Trained]], Keeper]


class Engine(Protocol):
    """A way to execute a run; its constructor takes the settings of its yaml.

    Attributes:
        queue_depth: slots of each send queue.
    """

    queue_depth: int

    def blocks(self, world_size: int) -> int:
        """How many blocks a model is cut into where the user says nothing. Raises ``SettingError`` where the engine
        can't run on so many ranks."""
        ...

    def describe(self, rank: Rank, partition: Partition) -> str:
        """One sentence about how it runs."""
        ...

    def train(self, job: Job) -> dict[str, Tensor]:
        """Do the whole plan; this rank's part of the trained model under global names."""
        ...
