"""Information propagation (Wang et al., arXiv 2101.10832): each block is trained to keep what reconstructs the image,
weighted towards early blocks, and what predicts the label, weighted towards late ones."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from trainer.errors import SettingError, at_least
from trainer.local_losses.base import LossOutput, LocalClassifier, LocalLoss, Site, probabilities
from trainer.local_losses.contrast import supervised_contrast
from trainer.local_losses.decoders import decoder
from trainer.local_losses.pooling import MeanTokens, unknown_features
from trainer.models.initial import kaiming_fan_out
from trainer.packet import Packet

EMBEDDING = 128
"""Size of the embedding that contrast compares."""


def trunk(site: Site, hidden: int) -> nn.Sequential:
    """All but the last layer of the head "1c2f": ``(N, ...)`` to ``(N, hidden)``. Maps go through a 3x3 convolution,
    which doubles the width at half the resolution unless the model has no wider maps; tokens through a linear layer."""
    match site.features:
        case (channels, _, _):
            widest = max([unit.out_shape[0] for unit in site.later if len(unit.out_shape) == 3], default=channels)
            out = max(channels, min(2 * channels, widest))
            layers: list[nn.Module] = [
                nn.Conv2d(channels, out, 3, 2 if out > channels else 1, 1, bias=False),
                nn.BatchNorm2d(out),
                nn.ReLU(inplace=True),
                nn.AdaptiveAvgPool2d(1),
                nn.Flatten(),
            ]
        case (_, out):
            layers = [nn.LayerNorm(out), nn.Linear(out, out), nn.ReLU(inplace=True), MeanTokens()]
        case (out,):
            layers = [nn.LayerNorm(out), nn.Linear(out, out), nn.ReLU(inplace=True)]
        case _:
            raise unknown_features(site.features)
    return kaiming_fan_out(nn.Sequential(*layers, nn.Linear(out, hidden), nn.ReLU(inplace=True)))


class InfoProClassifier(LocalClassifier):
    """Decoder, trunk and linear layer of one block."""

    def __init__(self, site: Site, reconstruct: str, hidden: int, contrast: bool, weights: tuple[float, float]) -> None:
        """``weights`` are those of the reconstruction, which at 0 has no decoder, and of the label's term."""
        super().__init__()
        self.reconstruction_weight, self.label_weight = weights
        self.from_image = reconstruct == "image"
        self.trunk = trunk(site, hidden)
        self.last = nn.Linear(hidden, site.num_classes)
        self.embed = nn.Linear(hidden, EMBEDDING) if contrast else None
        target = site.image_shape if self.from_image else site.in_shape
        self.decoder = decoder(site.features, target) if self.reconstruction_weight else None
        self.terms = ("label", *(["exit"] if contrast else []), *(["reconstruction"] if self.decoder else []))
        if self.decoder is not None and self.from_image:
            kaiming_fan_out(self.decoder)  # as in the paper's code; a block's input has no bounded scale

    def forward(self, features: Tensor) -> Tensor:
        """Features ``(N, ...)`` to logits ``(N, classes)``."""
        logits: Tensor = self.last(self.trunk(features))
        return logits

    def compute_loss(self, features: Tensor, packet: Packet) -> LossOutput:
        """Weighted reconstruction and label terms."""
        features = packet.tag.valid(features)
        # At weight 0 the early exit still learns, from features that it can't change.
        weight, seen = (self.label_weight, features) if self.label_weight else (1.0, features.detach())
        hidden = self.trunk(seen)
        logits = self.last(hidden if self.embed is None else hidden.detach())
        label = probabilities(packet.tag.valid(packet["label"]), logits.shape[1])
        entropy = F.cross_entropy(logits.float(), label)
        if self.embed is None:
            terms = {"label": entropy}
            loss = weight * entropy
        else:  # the logits are an early exit only
            terms = {"label": supervised_contrast(self.embed(hidden), label), "exit": entropy}
            loss = weight * terms["label"] + entropy
        if self.decoder is not None:
            terms["reconstruction"] = self._reconstruction(features, packet)
            loss = loss + self.reconstruction_weight * terms["reconstruction"]
        return LossOutput(loss, logits, terms)

    def _reconstruction(self, features: Tensor, packet: Packet) -> Tensor:
        """Binary cross-entropy against the image's pixels in 0..1, or squared error against the block's input."""
        assert self.decoder is not None
        decoded = self.decoder(features).float()
        if self.from_image:
            return F.binary_cross_entropy_with_logits(decoded, packet.tag.valid(packet["image"]).float() / 255)
        return F.mse_loss(decoded, packet.tag.valid(packet["x"]).detach().float())


class InfoPro(LocalLoss):
    """Reconstruction, and cross-entropy or supervised contrast, weighted by the depth of the cut."""

    def __init__(
        self,
        reconstruction: Sequence[float],
        label: Sequence[float],
        reconstruct: str = "image",
        contrast: bool = False,
        hidden: int = 128,
    ) -> None:
        """What each block is trained by.

        Args:
            reconstruction: weight of the reconstruction at the first and the last cut; linear between them, and the
                mean of both at an only cut.
            label: the same for the label's term.
            reconstruct: ``image``, which travels along for this, or ``input``, the block's input (arXiv 2212.14215),
                which sends nothing more.
            contrast: the label's term is the supervised contrastive loss instead of cross-entropy.
            hidden: width of the head's hidden layer.

        Raises:
            SettingError: a weight is negative, both are 0 at an end, or a value is unknown.
        """
        for name, pair in (("reconstruction", reconstruction), ("label", label)):
            if len(pair) != 2 or min(pair) < 0:
                raise SettingError(
                    f"local_loss.{name}={list(pair)} must be two weights of at least 0, at the first and the last cut"
                )
        for end, weights in zip(("first", "last"), zip(reconstruction, label, strict=True), strict=True):
            if not any(weights):
                raise SettingError(
                    f"local_loss.reconstruction={list(reconstruction)} and local_loss.label={list(label)} leave the "
                    f"{end} block without a loss; one of the two must be above 0 there"
                )
        if reconstruct not in ("image", "input"):
            raise SettingError(f"local_loss.reconstruct={reconstruct} is unknown; it is image or input")
        at_least(1, {"local_loss.hidden": hidden})
        self._ends = (reconstruction[0], reconstruction[1]), (label[0], label[1])
        self._reconstruct, self._contrast, self._hidden = reconstruct, contrast, hidden
        self.fields = ("image",) if reconstruct == "image" else ()

    def weights(self, depth: float) -> tuple[float, float]:
        """The weights of reconstruction and label at a cut's depth, 0.0 to 1.0."""
        reconstruction, label = ((1 - depth) * first + depth * last for first, last in self._ends)
        return reconstruction, label

    def classifier(self, site: Site) -> LocalClassifier:
        """Decoder and head for maps, tokens or vectors."""
        return InfoProClassifier(site, self._reconstruct, self._hidden, self._contrast, self.weights(site.depth))
