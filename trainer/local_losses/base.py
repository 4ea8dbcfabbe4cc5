"""What a local loss is: a factory of local classifiers, which compute the loss of a block's output."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple, Protocol

import torch.nn.functional as F
from torch import Tensor, nn

from trainer.packet import Packet


@dataclass(frozen=True)
class LaterUnit:
    """A unit of the model after a cut, as it was before training: to be copied, never to be trained or changed.

    Attributes:
        name: the unit's name.
        module: the unit itself, on the CPU with its initial weights.
        in_shape: shape of one sample of its input.
        out_shape: shape of one sample of its output.
    """

    name: str
    module: nn.Module
    in_shape: tuple[int, ...]
    out_shape: tuple[int, ...]


@dataclass(frozen=True)
class Site:
    """The cut at which a local classifier sits.

    Attributes:
        name: the cut point, the unit after which the model is cut.
        index: which cut this is, from 0.
        cuts: how many cuts there are in all.
        features: shape of one sample's features there, ``(C, H, W)``, ``(T, D)`` or ``(D,)``.
        num_classes: size of the logits.
        image_shape: ``(C, H, W)`` of one image.
        in_shape: shape of one sample of the block's input, which in the first block is an image.
        later: every unit of the model after the cut, in order; the last is the model's head.
    """

    name: str
    index: int
    cuts: int
    features: tuple[int, ...]
    num_classes: int
    image_shape: tuple[int, int, int]
    in_shape: tuple[int, ...]
    later: tuple[LaterUnit, ...]

    @property
    def depth(self) -> float:
        """Where the cut lies between the first, 0.0, and the last, 1.0; an only cut lies halfway, being both."""
        return self.index / (self.cuts - 1) if self.cuts > 1 else 0.5


class LossOutput(NamedTuple):
    """A block's output as its local classifier sees it: the scalar ``loss``, the ``logits``, ``(N, classes)``, and for
    people the ``terms`` that the loss is made of, scalars without their weights. Loss and terms are looked at some
    steps later, and must still have their values then."""

    loss: Tensor
    logits: Tensor
    terms: Mapping[str, Tensor] = MappingProxyType({})

    def detach(self) -> "LossOutput":
        """The same without a graph. A term may be a parameter or a buffer, which changes: then it is a copy."""
        terms = {name: (term.clone() if term.is_leaf else term).detach() for name, term in self.terms.items()}
        return LossOutput(self.loss.detach(), self.logits.detach(), terms)


class LocalClassifier(nn.Module):
    """The auxiliary head of one block. ``forward`` gives logits, an early exit of the network; ``compute_loss`` gives
    the local loss as well, by default the cross-entropy of those logits.

    Attributes:
        terms: names of the terms that ``compute_loss`` gives each time, if the loss has several.
    """

    terms: tuple[str, ...] = ()

    def forward(self, features: Tensor) -> Tensor:
        """Features ``(N, ...)`` to logits ``(N, classes)``."""
        raise NotImplementedError

    def copied_units(self) -> dict[str, str]:
        """Names in its state that begin with a value of the model's, and that value's name there. Where the model
        begins with given weights, so do these."""
        return {}

    def compute_loss(self, features: Tensor, packet: Packet) -> LossOutput:
        """The loss of features ``(N, ...)`` that the block made of ``packet``, whose ``x`` is the block's input; the
        mean over the packet's valid samples."""
        logits = packet.tag.valid(self(features))
        return LossOutput(F.cross_entropy(logits.float(), packet.tag.valid(packet["label"])), logits)


class ModelOutput(LocalClassifier):
    """The classifier of the last block: the model's own head has made the logits already."""

    def forward(self, features: Tensor) -> Tensor:
        """Logits ``(N, classes)``, as they are."""
        return features


class HeadClassifier(LocalClassifier):
    """A local classifier that is one head, trained by cross-entropy."""

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.head = head

    def forward(self, features: Tensor) -> Tensor:
        """Features ``(N, ...)`` to logits ``(N, classes)``."""
        logits: Tensor = self.head(features)
        return logits


@dataclass(frozen=True)
class Refresh:
    """When a local classifier takes over the weights of the next block's first unit.

    Attributes:
        every: after each so many steps the next block makes the unit's weights known.
        lag: weights as they were after step s are taken over before step s + ``lag`` is learned.
    """

    every: int
    lag: int

    def steps(self, after: int, last: int) -> range:
        """The refresh steps after step ``after`` up to step ``last``."""
        return range((max(0, after) // self.every + 1) * self.every, last + 1, self.every)


class LocalLoss(Protocol):
    """A method of local learning. Derive from it: what a method does not need is then as said here.

    Attributes:
        fields: names of packet fields that its classifiers need beyond the features and the label, such as ``image``.
        refresh: when its classifiers, which must be ``Follower`` then, follow the next block's first unit.
    """

    fields: tuple[str, ...] = ()
    refresh: Refresh | None = None

    def classifier(self, site: Site) -> LocalClassifier:
        """A new local classifier for a cut. Raises ``SettingError`` where the method has none for such features."""
        ...


class NoLocalLoss(LocalLoss):
    """What stands in the place of a local loss where blocks learn from the gradient that comes back."""

    def classifier(self, site: Site) -> LocalClassifier:
        """Nothing: no parameters, no loss."""
        return NoClassifier()


class NoClassifier(LocalClassifier):
    """The classifier of a block that has none."""

    def compute_loss(self, features: Tensor, packet: Packet) -> LossOutput:
        """A loss of nothing, at no cost."""
        return LossOutput(features.new_zeros(()), features.new_zeros(0))


def probabilities(label: Tensor, num_classes: int) -> Tensor:
    """Labels as class probabilities ``(N, classes)``, float32: one-hot where they are class indices ``(N,)``."""
    return label.float() if label.dim() == 2 else F.one_hot(label, num_classes).float()


def correct(logits: Tensor, label: Tensor) -> Tensor:
    """Which of ``logits`` ``(N, classes)`` have their maximum at ``label``, boolean ``(N,)``. Labels are class indices
    ``(N,)``, or class probabilities ``(N, classes)``, of which the largest counts."""
    target = label if label.dim() == 1 else label.argmax(1)
    return logits.argmax(1) == target
