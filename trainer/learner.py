"""A learner: what the training loop trains and tests, reports the loss of, and keeps the state of."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

from trainer.hostcopy import HostCopy
from trainer.meter import Meter
from trainer.packet import Packet
from trainer.update import Update


@dataclass
class Output(Packet):
    """What a learner makes of the packet ``incoming``: the packet for the next one, whose ``x`` is detached, and for
    the learner itself the ``features`` with their graph."""

    incoming: Packet = field(kw_only=True)
    features: Tensor = field(kw_only=True)


class Learner(ABC):
    """A block, or all stages that one rank has of an ordinary pipeline.

    ``forward`` and ``learn`` are the two halves of a training step, ``forward`` and ``test`` those of a test
    batch; between them the output leaves for the next learner.

    Attributes:
        index: its place among the learners of the run.
        cut: the unit that it ends with.
        replica: which copy of the model it belongs to: all copies are alike, but each has seen other images.
        meter: its running loss, the loss's terms, and accuracy.
    """

    index: int
    cut: str
    replica: int = 0
    meter: Meter
    _update: Update | None = None

    @property
    def update(self) -> Update:
        """Its optimizer and schedule; one that only predicts has none."""
        assert self._update is not None, f"what ends with {self.cut} was given no update"
        return self._update

    @abstractmethod
    def train(self) -> None:
        """Prepare for training steps."""

    @abstractmethod
    def eval(self) -> None:
        """Prepare for tests."""

    @abstractmethod
    def forward(self, packet: Packet) -> Output:
        """The first half of a training step or of a test batch: what is handed on."""

    @abstractmethod
    def learn(self, output: Output) -> None:
        """The second half of a training step. Raises ``NonFiniteLossError`` where the loss is NaN or infinite, on CUDA
        some steps later."""

    @abstractmethod
    def test(self, output: Output) -> None:
        """The second half of a test batch."""

    @abstractmethod
    def check_losses(self) -> None:
        """At the end, look at the losses that have not been looked at, and at the weights, which no loss has seen since
        the last update. Raises ``NonFiniteLossError``."""

    @abstractmethod
    def unseen_losses(self) -> list[HostCopy]:
        """Losses that have not been looked at; where one of them is not finite, its state is not to be kept."""

    @abstractmethod
    def state(self) -> dict[str, Tensor]:
        """Every parameter and buffer under its global name."""

    def copied_units(self) -> Mapping[str, str]:
        """Names of its state that begin with the value that another name has in the model: copies of units."""
        return {}

    def exchange_state(self) -> dict[str, Tensor]:
        """Weights that it has published and a neighbor not yet applied, under ``published.``: what a checkpoint must
        hold beside ``state`` for the exchange of weights to go on."""
        return {}

    def resume_exchange(self, done: int, state: Mapping[str, Tensor]) -> None:
        """Go on after step ``done`` with all that was published and not yet applied; the weights must be in place."""
        return None
