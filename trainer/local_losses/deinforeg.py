"""Decoupled information regularization (DeInfoReg, arXiv 2506.18193): variance, invariance and covariance of a
projection of the features, with a small cross-entropy."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainer.errors import at_least
from trainer.local_losses.base import LossOutput, LocalClassifier, LocalLoss, Site, probabilities
from trainer.local_losses.pooling import flat_pool
from trainer.local_losses.similarity import gram, similarity_loss
from trainer.packet import Packet

VARIANCE_EPSILON = 1e-7
"""Added to a variance before its root is taken, whose slope at 0 is infinite."""


def variance_term(z: Tensor) -> Tensor:
    """How far each column's standard deviation stays below 1, the mean over columns over the number of rows of ``z``
    ``(N, D)``. One row has a deviation of 0."""
    deviation = (z.var(0, correction=min(1, len(z) - 1)) + VARIANCE_EPSILON).sqrt()
    return torch.relu(1 - deviation).mean() / len(z)


def covariance_term(z: Tensor) -> Tensor:
    """The sum of the squared covariances of different columns of ``z`` ``(N, D)``, means over N, over D."""
    centered = z - z.mean(0)
    covariance = gram(centered.T) / len(z)
    return (covariance.square().sum() - covariance.diagonal().square().sum()) / z.shape[1]


def projector(size: int, width: int) -> nn.Sequential:
    """Three linear layers with batch norm and ReLU between them: ``(N, size)`` to ``(N, width)``."""
    return nn.Sequential(
        nn.Linear(size, width, bias=False),
        nn.BatchNorm1d(width),
        nn.ReLU(inplace=True),
        nn.Linear(width, width, bias=False),
        nn.BatchNorm1d(width),
        nn.ReLU(inplace=True),
        nn.Linear(width, width),
    )


class DeInfoRegClassifier(LocalClassifier):
    """Projector, and a classifier on its output."""

    terms = ("variance", "invariance", "covariance", "label")

    def __init__(self, site: Site, width: int, limit: int, label: float) -> None:
        super().__init__()
        self.label_weight = label
        pool, size = flat_pool(site.features, limit)
        self.project = nn.Sequential(pool, projector(size, width))
        self.classify = nn.Sequential(nn.BatchNorm1d(width), nn.ReLU(), nn.Linear(width, site.num_classes))

    def forward(self, features: Tensor) -> Tensor:
        """Features ``(N, ...)`` to logits ``(N, classes)``."""
        logits: Tensor = self.classify(self.project(features))
        return logits

    def compute_loss(self, features: Tensor, packet: Packet) -> LossOutput:
        """The three terms and the cross-entropy."""
        projected = self.project(packet.tag.valid(features))
        logits = self.classify(projected)
        label = probabilities(packet.tag.valid(packet["label"]), logits.shape[1])
        z = F.normalize(projected.float(), dim=1)
        terms = {
            "variance": variance_term(z),
            "invariance": similarity_loss(z, label),
            "covariance": covariance_term(z),
            "label": F.cross_entropy(logits.float(), label),
        }
        regularity = terms["variance"] + terms["invariance"] + terms["covariance"]
        return LossOutput(regularity + self.label_weight * terms["label"], logits, terms)


class DeInfoReg(LocalLoss):
    """Variance, invariance (similarity matching with the labels), covariance, and a small cross-entropy."""

    def __init__(self, width: int = 512, limit: int = 2048, label: float = 0.001) -> None:
        """``width`` is that of the projector, ``limit`` the number of pooled features that it sees at most, and
        ``label`` the weight of the cross-entropy."""
        at_least(1, {"local_loss.width": width, "local_loss.limit": limit})
        at_least(0, {"local_loss.label": label})
        self._width, self._limit, self._label = width, limit, label

    def classifier(self, site: Site) -> LocalClassifier:
        """A projector for maps, tokens or vectors."""
        return DeInfoRegClassifier(site, self._width, self._limit, self._label)
