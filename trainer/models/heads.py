"""Classifier heads for the three kinds of features: maps ``(N, C, H, W)``, tokens ``(N, T, D)``, vectors ``(N, D)``."""

from torch import Tensor, nn

from trainer.errors import SettingError


class PoolHead(nn.Sequential):
    """Global average pool and linear classifier: ``(N, C, H, W)`` to ``(N, classes)``."""

    def __init__(self, channels: int, num_classes: int) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.fc = nn.Linear(channels, num_classes)


class TokenHead(nn.Module):
    """Layer norm, mean over the tokens and linear classifier: ``(N, T, D)`` to ``(N, classes)``."""

    def __init__(self, width: int, num_classes: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.fc = nn.Linear(width, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """``(N, T, D)`` to ``(N, classes)``."""
        return self.fc(self.norm(x).mean(1))


def linear_head(features: tuple[int, ...], num_classes: int) -> nn.Module:
    """The smallest head for features of shape ``features`` (without N)."""
    match features:
        case (channels, _, _):
            return PoolHead(channels, num_classes)
        case (_, width):
            return TokenHead(width, num_classes)
        case (width,):
            return nn.Linear(width, num_classes)
    raise SettingError(
        f"no classifier is known for features of shape {features}; cut where the features are maps, tokens or vectors"
    )
