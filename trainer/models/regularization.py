"""Random omissions in a network that keep it from overfitting."""

import torch
from torch import Tensor, nn

from trainer.errors import SettingError


class StochasticDepth(nn.Module):
    """Leaves out a residual branch, for each sample at random (Huang et al., arXiv 1603.09382). It draws from the
    device's generator, which a block seeds for every step and unit."""

    def __init__(self, rate: float) -> None:
        """``rate`` is the probability that a branch is left out."""
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        """``(N, ...)`` to the same."""
        if not self.training or self.rate == 0:
            return x
        kept = torch.empty((len(x),) + (1,) * (x.dim() - 1), dtype=x.dtype, device=x.device).bernoulli_(1 - self.rate)
        return x * kept / (1 - self.rate)

    def extra_repr(self) -> str:
        """The rate."""
        return f"rate={self.rate}"


def check_rate(name: str, rate: float) -> None:
    """Raise ``SettingError`` unless a rate is at least 0 and below 1."""
    if not 0 <= rate < 1:
        raise SettingError(f"{name}={rate} must be at least 0 and below 1")
