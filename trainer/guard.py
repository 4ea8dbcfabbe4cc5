"""Leaving out the update of a step whose loss is not finite, decided on the device. The host waits for the decision
only in the step in which the optimizer makes its state, and in every one where it keeps its counts on the host."""

from collections.abc import Callable, Collection, Mapping

import torch
from torch import Tensor


class Guard:
    """Keeps a copy of a block's state as after its last good step, and puts it back after a bad one. That covers what
    a bad step has touched before its loss was known, such as the running averages of batch norm."""

    def __init__(
        self, state: Callable[[], Mapping[str, Tensor]], forget: Callable[[Collection[str]], None]
    ) -> None:
        """``state`` gives weights, buffers and optimizer state by name; ``forget`` removes what the optimizer has made
        under the names it is given."""
        self._state, self._forget = state, forget
        self._good = _copies(state())

    @torch.no_grad()
    def keep(self, prefix: str) -> None:
        """What has a name with ``prefix`` was changed from outside since the last step, and is good as it is now."""
        self._good |= _copies({name: tensor for name, tensor in self._state().items() if name.startswith(prefix)})

    @torch.no_grad()
    def settle(self, loss: Tensor, gradients: list[Tensor]) -> Tensor:
        """After a step with a scalar ``loss`` and these gradients: keep its result or put the one before back. Gives
        whether it was good, a boolean scalar on the device."""
        good = loss.detach().isfinite()
        if gradients:
            good = good & torch.stack(torch._foreach_norm(gradients)).isfinite().all()
        new = {name: tensor for name, tensor in self._state().items() if name not in self._good}
        if new and good.item():
            self._good |= _copies(new)
        elif new:
            self._forget(new.keys())
        for name, tensor in self._state().items():
            kept = self._good[name]
            kept.copy_(torch.where(good, tensor, kept))
            tensor.copy_(kept)
        return good


def _copies(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in state.items()}
