"""Optimizers that a run can't use are refused before it begins."""

from collections.abc import Iterable
from typing import Any

import pytest
import torch
from torch import nn

from trainer.errors import SettingError
from trainer.optimizers.trial import try_out


class Odd(torch.optim.Optimizer):
    """One that keeps a count beside its parameters' state."""

    def __init__(self, params: Iterable[nn.Parameter], **defaults: float) -> None:
        super().__init__(params, defaults)

    def step(self, closure: Any = None) -> None:
        self.state["steps"] = self.state.get("steps", 0) + 1  # type: ignore[index]


class Recalling(torch.optim.Optimizer):
    """One that keeps the last gradients in a list."""

    def __init__(self, params: Iterable[nn.Parameter], lr: float) -> None:
        super().__init__(params, {"lr": lr})

    def step(self, closure: Any = None) -> None:
        for group in self.param_groups:
            for parameter in group["params"]:
                self.state[parameter].setdefault("last", []).append(parameter.grad)


@pytest.mark.parametrize(
    "make, message",
    [
        (torch.optim.LBFGS, r"optimizer._target_=torch.optim.lbfgs.LBFGS can't step with gradients alone \(.*closure"),
        (torch.optim.SparseAdam, "SparseAdam can't step with gradients alone"),
        (lambda parameters: Odd(parameters, speed=1.0), "Odd has no rate lr, which the scheduler would set"),
        (lambda parameters: Odd(parameters, lr=1.0), "Odd keeps state beside its parameters', which no checkpoint"),
        (lambda parameters: Recalling(parameters, lr=1.0), "Recalling keeps last as a list, which no checkpoint holds"),
    ],
)
def test_what_does_not_fit_is_refused(make: Any, message: str) -> None:
    with pytest.raises(SettingError, match=message):
        try_out(make, nn.Parameter(torch.zeros(1)))


@pytest.mark.parametrize("kind", ["SGD", "Adam", "AdamW", "RMSprop", "Adagrad", "Adadelta", "NAdam", "RAdam", "Rprop"])
def test_torchs_own_fit(kind: str) -> None:
    try_out(lambda parameters: getattr(torch.optim, kind)(parameters, lr=0.1), nn.Parameter(torch.zeros(1)))
