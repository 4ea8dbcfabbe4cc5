"""Leaving out the update of a step whose loss is not finite, decided on the device: the host never waits for it."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor


class Guard:
    """Keeps a copy of a block's state as after its last good step, and puts it back after a bad one. That covers what
    a bad step has touched before its loss was known, such as the running averages of batch norm."""

    def __init__(self, state: Callable[[], Mapping[str, Tensor]]) -> None:
        """``state`` gives weights, buffers and optimizer state by name."""
        self._state = state
        self._good = {name: tensor.detach().clone() for name, tensor in state().items()}

    @torch.no_grad()
    def settle(self, loss: Tensor, gradients: list[Tensor]) -> Tensor:
        """After a step with a scalar ``loss`` and these gradients: keep its result or put the one before back. Gives
        whether it was good, a boolean scalar on the device."""
        good = loss.detach().isfinite()
        if gradients:
            good = good & torch.stack(torch._foreach_norm(gradients)).isfinite().all()
        for name, tensor in self._state().items():
            if name not in self._good:  # the optimizer's state, made in the first step: zero is what it begins with
                self._good[name] = torch.zeros_like(tensor)
            kept = self._good[name]
            kept.copy_(torch.where(good, tensor, kept))
            tensor.copy_(kept)
        return good
