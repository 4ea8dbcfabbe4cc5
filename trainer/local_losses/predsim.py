"""Prediction and similarity matching (Nøkland and Eidnes, arXiv 1901.06656)."""

import torch.nn.functional as F
from torch import Tensor, nn

from trainer.errors import at_least, check_share
from trainer.local_losses.base import LossOutput, LocalClassifier, LocalLoss, Site, probabilities
from trainer.local_losses.pooling import flat_pool, unknown_features
from trainer.local_losses.similarity import similarity_loss
from trainer.packet import Packet


def similarity_head(features: tuple[int, ...]) -> nn.Module:
    """What features pass through before their similarity is taken: a 3x3 convolution, or a linear layer for each
    token or vector, without a bias and with the same width."""
    match features:
        case (channels, _, _):
            return nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        case (*_, width):
            return nn.Linear(width, width, bias=False)
    raise unknown_features(features)


def spread(x: Tensor) -> Tensor:
    """The standard deviation of each channel over the places of a sample: maps ``(N, C, H, W)`` to ``(N, C)``, tokens
    ``(N, T, D)`` to ``(N, D)``; vectors, and all that has one place only, keep their values."""
    match x.dim():
        case 4:
            places = x.flatten(2)
        case 3:
            places = x.transpose(1, 2)
        case _:
            places = x[..., None]
    return places.float().std(2) if places.shape[2] > 1 else places.squeeze(2)


class PredSimClassifier(LocalClassifier):
    """The prediction head, pool and a linear layer that starts at 0, and the similarity head."""

    terms = ("prediction", "similarity")

    def __init__(self, site: Site, beta: float, limit: int) -> None:
        super().__init__()
        self.beta = beta
        self.pool, size = flat_pool(site.features, limit)
        self.predict = nn.Linear(size, site.num_classes)
        nn.init.zeros_(self.predict.weight)
        self.match = similarity_head(site.features)

    def forward(self, features: Tensor) -> Tensor:
        """Features ``(N, ...)`` to logits ``(N, classes)``."""
        logits: Tensor = self.predict(self.pool(features))
        return logits

    def compute_loss(self, features: Tensor, packet: Packet) -> LossOutput:
        """Cross-entropy and similarity matching."""
        features = packet.tag.valid(features)
        logits = self(features)
        label = probabilities(packet.tag.valid(packet["label"]), logits.shape[1])
        prediction = F.cross_entropy(logits.float(), label)
        matching = similarity_loss(spread(self.match(features)), label)
        loss = (1 - self.beta) * prediction + self.beta * matching
        return LossOutput(loss, logits, {"prediction": prediction, "similarity": matching})


class PredSim(LocalLoss):
    """Cross-entropy of a linear classifier, and the match between the similarities of the features and the labels."""

    def __init__(self, beta: float = 0.99, limit: int = 2048) -> None:
        """``beta`` is similarity matching's part of the loss, from 0 to 1; ``limit`` is the number of pooled features
        that the linear classifier sees at most."""
        check_share("local_loss.beta", beta)
        at_least(1, {"local_loss.limit": limit})
        self._beta, self._limit = beta, limit

    def classifier(self, site: Site) -> LocalClassifier:
        """Heads for maps, tokens or vectors."""
        return PredSimClassifier(site, self._beta, self._limit)
