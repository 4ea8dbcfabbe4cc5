"""What a run asks of an optimizer, tried out before the run begins."""

import torch
from torch import nn
from torch.optim import Optimizer

from trainer.errors import SettingError
from trainer.optimizers import uncompiled
from trainer.update import SCALARS, MakeOptimizer


def try_out(make_optimizer: MakeOptimizer, parameter: nn.Parameter) -> Optimizer:
    """An optimizer of ``parameter`` after a step with a gradient of 0. Raises ``SettingError`` for one that wants more
    than gradients, has no rate to be scheduled, or keeps what no checkpoint would hold."""
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
    for key, value in optimizer.state[parameter].items():
        if not isinstance(value, (torch.Tensor, *SCALARS)):
            raise SettingError(
                f"{name} keeps {key} as a {type(value).__name__}, which no checkpoint holds; choose an optimizer whose "
                f"state is tensors and numbers"
            )
    return optimizer
