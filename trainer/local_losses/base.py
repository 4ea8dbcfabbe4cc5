"""What a local loss is: a factory of local classifiers, which know how to judge a block's output."""

from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainer.packet import Packet


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
    """

    name: str
    index: int
    cuts: int
    features: tuple[int, ...]
    num_classes: int
    image_shape: tuple[int, int, int]


class Judged(NamedTuple):
    """A block's output as its local classifier sees it: the scalar ``loss`` and the ``logits``, ``(N, classes)``."""

    loss: Tensor
    logits: Tensor


class LocalClassifier(nn.Module):
    """The auxiliary head of one block. ``forward`` gives logits, an early exit of the network; ``judge`` gives the
    local loss as well, by default the cross-entropy of those logits."""

    def forward(self, features: Tensor) -> Tensor:
        """Features ``(N, ...)`` to logits ``(N, classes)``."""
        raise NotImplementedError

    def judge(self, features: Tensor, packet: Packet) -> Judged:
        """The loss of features ``(N, ...)`` that came of ``packet``, the mean over its valid samples."""
        count = packet.tag.count
        logits = self(features)[:count]
        return Judged(F.cross_entropy(logits.float(), packet["label"][:count]), logits)


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


class LocalLoss(Protocol):
    """A method of local learning.

    Attributes:
        fields: names of packet fields that its classifiers need beyond the features and the label, such as ``image``.
    """

    fields: tuple[str, ...]

    def classifier(self, site: Site) -> LocalClassifier:
        """A new local classifier for a cut. Raises ``SettingError`` where the method has none for such features."""
        ...


class NoLocalLoss:
    """What stands in the place of a local loss where blocks learn from the gradient that comes back."""

    fields: tuple[str, ...] = ()

    def classifier(self, site: Site) -> LocalClassifier:
        """Nothing: no parameters, no loss."""
        return NoClassifier()


class NoClassifier(LocalClassifier):
    """The classifier of a block that has none."""

    def judge(self, features: Tensor, packet: Packet) -> Judged:
        """A loss of nothing, at no cost."""
        return Judged(features.new_zeros(()), features.new_zeros(0))


def correct(logits: Tensor, label: Tensor) -> Tensor:
    """How many of ``logits`` ``(N, classes)`` have their maximum at ``label``: class indices ``(N,)``, or class
    probabilities ``(N, classes)``, of which the largest counts."""
    target = label if label.dim() == 1 else label.argmax(1)
    return (logits.argmax(1) == target).sum(dtype=torch.float64)
