"""Decoupled greedy learning (Belilovsky et al., arXiv 1901.08164), with the authors' "mlp-sr" head."""

from torch import nn

from trainer.errors import at_least
from trainer.local_losses.base import HeadClassifier, LocalClassifier, LocalLoss, Site
from trainer.local_losses.pooling import MeanTokens, PoolMap, Windows, unknown_features


class MapHead(nn.Sequential):
    """Pool to a quarter of the resolution, 1x1 convolutions, pool to 2x2, perceptron: ``(N, C, H, W)`` to
    ``(N, classes)``; batch norm and ReLU after every layer but the last."""

    def __init__(
        self, features: tuple[int, int, int], num_classes: int, pointwise_layers: int, hidden_layers: int
    ) -> None:
        channels, height, width = features
        quarter = -(-height // 4), -(-width // 4)
        layers: list[nn.Module] = [PoolMap((height, width), quarter)]
        for _ in range(pointwise_layers):
            layers += [nn.Conv2d(channels, channels, 1, bias=False), nn.BatchNorm2d(channels), nn.ReLU(inplace=True)]
        layers += [PoolMap(quarter, (2, 2)), nn.Flatten()]
        for _ in range(hidden_layers):
            layers += [
                nn.Linear(4 * channels, 4 * channels, bias=False),
                nn.BatchNorm1d(4 * channels),
                nn.ReLU(inplace=True),
            ]
        super().__init__(*layers, nn.Linear(4 * channels, num_classes))


class TokensHead(nn.Sequential):
    """The same head for tokens, ``(N, T, D)`` to ``(N, classes)``: linear layers for each token where maps have 1x1
    convolutions, and layer norm where maps have batch norm."""

    def __init__(self, features: tuple[int, int], num_classes: int, pointwise_layers: int, hidden_layers: int) -> None:
        tokens, width = features
        layers: list[nn.Module] = [nn.LayerNorm(width), Windows(tokens, -(-tokens // 4))]
        layers += self._layers(width, pointwise_layers)
        layers.append(MeanTokens())
        layers += self._layers(width, hidden_layers)
        super().__init__(*layers, nn.Linear(width, num_classes))

    @staticmethod
    def _layers(width: int, count: int) -> list[nn.Module]:
        layers: list[nn.Module] = []
        for _ in range(count):
            layers += [nn.Linear(width, width, bias=False), nn.LayerNorm(width), nn.ReLU(inplace=True)]
        return layers


class DGL(LocalLoss):
    """Cross-entropy of a small perceptron on pooled features."""

    def __init__(self, pointwise_layers: int = 3, hidden_layers: int = 3) -> None:
        """How many layers stand before and after the last pooling; the paper has three of each."""
        at_least(0, {"local_loss.pointwise_layers": pointwise_layers, "local_loss.hidden_layers": hidden_layers})
        self._layers = pointwise_layers, hidden_layers

    def classifier(self, site: Site) -> LocalClassifier:
        """A head for maps or tokens; vectors are tokens of which there is one."""
        match site.features:
            case (channels, height, width):
                return HeadClassifier(MapHead((channels, height, width), site.num_classes, *self._layers))
            case (tokens, width):
                return HeadClassifier(TokensHead((tokens, width), site.num_classes, *self._layers))
            case (width,):
                return HeadClassifier(
                    nn.Sequential(nn.Unflatten(1, (1, width)), TokensHead((1, width), site.num_classes, *self._layers))
                )
        raise unknown_features(site.features)
