"""What a run asks of an optimizer, tried out before the run begins."""

import torch
from torch import nn

from trainer.errors import SettingError
from trainer.optimizers import uncompiled
from trainer.update import MakeOptimizer


def try_out(make_optimizer: MakeOptimizer, device: torch.device) -> None:
    """Make an optimizer and let it step on ``device``. Raises ``SettingError`` for one that wants more than gradients,
    has no rate to be scheduled, or keeps what no checkpoint would hold."""
    parameter = nn.Parameter(torch.zeros(1, device=device))
    optimizer = make_optimizer([parameter])
    name = f"optimizer._target_={type(optimizer).__module__}.{type(optimizer).__qualname__}"
    if not all("lr" in group for group in optimizer.param_groups):
        raise SettingError(f"{name} has no rate lr, which the scheduler would set; choose another optimizer")
    parameter.grad = torch.zeros_like(parameter)
    try:
        uncompiled.step(optimizer)
    except Exception as error:
        raise SettingError(f"{name} can't step with gradients alone ({error}); choose another optimizer") from error
    if optimizer.state.keys() - {parameter}:
        raise SettingError(f"{name} keeps state beside its parameters', which no checkpoint holds; choose another one")
