"""Pooling that the heads of several local losses share."""

from torch import Tensor, nn

from trainer.errors import SettingError


class PoolTokens(nn.Module):
    """Average neighbouring tokens until ``tokens`` are left: ``(N, T, D)`` to ``(N, tokens, D)``."""

    def __init__(self, tokens: int) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool1d(tokens)

    def forward(self, x: Tensor) -> Tensor:
        """``(N, T, D)`` to ``(N, tokens, D)``."""
        pooled: Tensor = self.pool(x.transpose(1, 2))
        return pooled.transpose(1, 2)


class MeanTokens(nn.Module):
    """Average all tokens: ``(N, T, D)`` to ``(N, D)``."""

    def forward(self, x: Tensor) -> Tensor:
        """``(N, T, D)`` to ``(N, D)``."""
        return x.mean(1)


def flat_pool(features: tuple[int, ...], limit: int) -> tuple[nn.Module, int]:
    """A module that averages neighbouring places, by halving height and width (or the number of tokens) in turn, until
    no more than ``limit`` numbers a sample are left or there is one place, and flattens them; and how many those are.
    Vectors stay as they are."""
    match features:
        case (channels, height, width):
            high, wide = height, width
            while channels * high * wide > limit and high * wide > 1:
                if high >= wide:
                    high = -(-high // 2)
                else:
                    wide = -(-wide // 2)
            return nn.Sequential(nn.AdaptiveAvgPool2d((high, wide)), nn.Flatten()), channels * high * wide
        case (tokens, width):
            left = tokens
            while left * width > limit and left > 1:
                left = -(-left // 2)
            return nn.Sequential(PoolTokens(left), nn.Flatten()), left * width
        case (width,):
            return nn.Identity(), width
    raise unknown_features(features)


def unknown_features(features: tuple[int, ...]) -> SettingError:
    """The error for features that no head is known for."""
    return SettingError(
        f"this local_loss has no head for features of shape {features}; cut where they are maps, tokens or vectors"
    )
