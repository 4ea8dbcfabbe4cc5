"""Initial weights."""

from typing import TypeVar

from torch import nn

M = TypeVar("M", bound=nn.Module)


def kaiming_fan_out(module: M) -> M:
    """``module`` with every convolution's weights drawn anew from a normal distribution of variance 2 / (k^2 C_out) (He
    et al., arXiv 1502.01852), as ResNets are."""
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.kaiming_normal_(part.weight, mode="fan_out", nonlinearity="relu")
    return module
