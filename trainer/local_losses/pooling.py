"""Pooling that the heads of several local losses share.

``nn.AdaptiveAvgPool2d`` sums its gradient on CUDA in whatever order the threads come, unless one place is left; what is
here computes the same averages and repeats bit for bit.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainer.errors import SettingError


class Windows(nn.Module):
    """Average windows of neighboring rows: ``(..., takes, D)`` to ``(..., gives, D)``. They are those of torch's
    adaptive pooling: as many as asked for, of sizes that differ by one at most, overlapping where it does not come out
    even."""

    def __init__(self, takes: int, gives: int) -> None:
        super().__init__()
        members = torch.zeros(gives, takes)
        for index in range(gives):
            members[index, index * takes // gives : -(-(index + 1) * takes // gives)] = 1
        self.members: Tensor
        self.sizes: Tensor
        self.register_buffer("members", members, persistent=False)
        self.register_buffer("sizes", members.sum(1, keepdim=True), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """``(..., takes, D)`` to ``(..., gives, D)``."""
        return ((self.members @ x) / self.sizes).to(x.dtype)


class PoolMap(nn.Module):
    """Average places of a map: ``(N, C, h, w)`` to ``(N, C, *gives)``, as ``nn.AdaptiveAvgPool2d``. Maps of another
    size than ``takes`` must have a multiple of ``gives``."""

    def __init__(self, takes: tuple[int, int], gives: tuple[int, int]) -> None:
        super().__init__()
        self.gives = gives
        self.rows, self.columns = (Windows(before, after) for before, after in zip(takes, gives, strict=True))

    def forward(self, x: Tensor) -> Tensor:
        """``(N, C, h, w)`` to ``(N, C, *gives)``."""
        (height, width), (high, wide) = x.shape[2:], self.gives
        if height % high == 0 and width % wide == 0:
            return F.avg_pool2d(x, (height // high, width // wide))
        return self.columns(self.rows(x).transpose(2, 3)).transpose(2, 3)


class MeanTokens(nn.Module):
    """Average all tokens: ``(N, T, D)`` to ``(N, D)``."""

    def forward(self, x: Tensor) -> Tensor:
        """``(N, T, D)`` to ``(N, D)``."""
        return x.mean(1)


def flat_pool(features: tuple[int, ...], limit: int) -> tuple[nn.Module, int]:
    """A module that averages neighboring places, by halving height and width (or the number of tokens) in turn, until
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
            return nn.Sequential(PoolMap((height, width), (high, wide)), nn.Flatten()), channels * high * wide
        case (tokens, width):
            left = tokens
            while left * width > limit and left > 1:
                left = -(-left // 2)
            return nn.Sequential(Windows(tokens, left), nn.Flatten()), left * width
        case (width,):
            return nn.Identity(), width
    raise unknown_features(features)


def unknown_features(features: tuple[int, ...]) -> SettingError:
    """The error for features that no head is known for."""
    return SettingError(
        f"this local_loss has no head for features of shape {features}; cut where they are maps, tokens or vectors"
    )
