"""Layer-wise adaptive rate scaling, for large batches."""

from collections.abc import Callable
from typing import Any, overload

import torch
from torch import Tensor

from trainer.errors import SettingError, at_least


class LARS(torch.optim.Optimizer):
    """SGD with momentum whose rate for each layer is in proportion to the norm of its weights over that of its gradient
    (You et al., arXiv 1708.03888):

    ``rate = trust * |w| / (|g| + weight_decay * |w|)``, ``v = momentum * v + lr * rate * (g + weight_decay * w)``,
    ``w = w - v``.

    Biases and the weights of norms (vectors) are updated by plain SGD without weight decay.
    """

    def __init__(
        self, params: Any, lr: float, momentum: float = 0.9, weight_decay: float = 0.0, trust: float = 0.001
    ) -> None:
        """``trust`` is the paper's eta. Raises ``SettingError`` for a value out of range."""
        at_least(0, {"optimizer.lr": lr, "optimizer.momentum": momentum, "optimizer.weight_decay": weight_decay})
        if trust <= 0:
            raise SettingError(f"optimizer.trust={trust} must be above 0")
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "trust": trust})

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Update every parameter that has a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, parameter.grad, group)
        return loss

    def _update(self, weight: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        if weight.dim() > 1:
            decay = group["weight_decay"]
            size, slope = weight.norm(), gradient.norm()
            rate = group["trust"] * size / (slope + decay * size)
            # Weights or a gradient of zero say nothing about the right rate.
            rate = torch.where((size > 0) & (slope > 0), rate, torch.ones_like(rate))
            gradient = gradient.add(weight, alpha=decay) * rate
        state = self.state[weight]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(weight)
        velocity = state["momentum_buffer"].mul_(group["momentum"]).add_(gradient, alpha=group["lr"])
        weight.sub_(velocity)
