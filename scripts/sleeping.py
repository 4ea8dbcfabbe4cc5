"""A model whose blocks take a set time by sleeping: what remains of a step is what schedule and transport cost, and
many ranks can be timed on few cores, since sleepers do not fight for them."""

import functools
import time
from typing import Any

import torch
from torch import Tensor, nn

from trainer.local_losses.base import HeadClassifier, LocalClassifier, LocalLoss, Site


class _Sleep(torch.autograd.Function):
    """Hands a tensor on, with a weight as if that had a part in it; sleeps forward, and backward as long as the
    gradients take."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor | None, forward_seconds: float, backward_seconds: float) -> Tensor:
        ctx.seconds = backward_seconds
        time.sleep(forward_seconds)
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        time.sleep(ctx.seconds)
        return gradients[0], gradients[0].new_zeros(1) if ctx.needs_input_grad[1] else None, None, None


class _Weigh(torch.autograd.Function):
    """Hands a tensor on as if a weight had a part in it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        return gradients[0], gradients[0].new_zeros(1)


class _Weight(torch.autograd.Function):
    """Hands a weight on; sleeps backward as long as gradients of weights take."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, seconds: float) -> Tensor:
        ctx.seconds = seconds
        return weight.view_as(weight)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        time.sleep(ctx.seconds)
        return gradients[0], None


class _Columns(torch.autograd.Function):
    """The first few columns of ``(N, width)``. The gradient is zeros whatever comes in, and always the same ones: to
    fill a tensor as large as a packet anew in every step would cost more than all else here."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, columns: int) -> Tensor:
        ctx.like = x.shape, x.dtype, x.device
        return x[:, :columns]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        return _zeros(*ctx.like), None


@functools.cache
def _zeros(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.zeros(shape, dtype=dtype, device=device)


class Sleeper(nn.Module):
    """A unit that takes ``forward_seconds`` and ``backward_seconds`` for ``whole_batch`` images: ``(N, ...)`` to
    ``(N, width)``, images to zeros and all else as it is. Half of the backward is for inputs and half for weights;
    where no input needs a gradient, all of it is for weights, so that it always takes as long. It computes nothing:
    that would be what many ranks fight for."""

    def __init__(self, forward_seconds: float, backward_seconds: float, whole_batch: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self._seconds, self._whole_batch, self._width = (forward_seconds, backward_seconds), whole_batch, width

    def forward(self, x: Tensor) -> Tensor:
        """``(N, ...)`` to ``(N, width)``."""
        share = 0.0 if x.is_meta else len(x) / self._whole_batch
        forward_seconds, backward_seconds = (share * seconds for seconds in self._seconds)
        if not self.training:
            forward_seconds = 0.0
        if not x.requires_grad:
            packet = _zeros((len(x), self._width), torch.float32, x.device) if x.dim() > 2 else x
            return _Sleep.apply(packet, self.weight, forward_seconds, backward_seconds)
        # In parts, of which a schedule that splits the backward runs some now and some later.
        half = backward_seconds / 2
        return _Weigh.apply(_Sleep.apply(x, None, forward_seconds, half), _Weight.apply(self.weight, half))


class Glance(nn.Linear):
    """A linear classifier on the first few features alone: ``(N, width)`` to ``(N, classes)``."""

    def __init__(self, num_classes: int) -> None:
        super().__init__(8, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """``(N, width)`` to ``(N, classes)``."""
        return super().forward(_Columns.apply(x, self.in_features))


class Glancing(LocalLoss):
    """Cross-entropy after a classifier that costs as good as nothing, whatever the features' size."""

    def classifier(self, site: Site) -> LocalClassifier:
        """One ``Glance``."""
        return HeadClassifier(Glance(site.num_classes))


def sleeping(
    forward_ms: list[float],
    backward_ms: list[float],
    parts: int,
    whole_batch: int,
    packet_bytes: int,
    num_classes: int,
) -> nn.Sequential:
    """A model of one block for each of ``forward_ms`` and ``backward_ms``, named ``block0``, ``block1``, ..., of
    ``parts`` equal units, and a head that takes no time."""
    width = max(8, packet_bytes // (4 * whole_batch))
    model = nn.Sequential()
    for index, (forward, backward) in enumerate(zip(forward_ms, backward_ms, strict=True)):
        seconds = forward / 1e3 / parts, backward / 1e3 / parts
        units = [Sleeper(*seconds, whole_batch, width) for _ in range(parts)]
        model.add_module(f"block{index}", nn.Sequential(*units))
    model.add_module("head", Glance(num_classes))
    return model


def cut_points(blocks: int, parts: int) -> list[str]:
    """Where to cut a model of so many blocks such that each unit is a stage; the head belongs to the last."""
    return [f"block{block}.{part}" for block in range(blocks) for part in range(parts)][:-1]
