"""What is done with optimizers, without torch's compiler.

Torch imports the compiler, 800 modules in more than a second, when an optimizer is made, steps or takes over a state,
to tell it where not to compile. No optimizer is ever compiled here, and ranks that start on few cores wait for each
other's imports. So functions that torch has wrapped for the compiler's sake are called as they were before.
"""

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.optim import Optimizer


def made(make: Callable[[], Optimizer]) -> Optimizer:
    """The optimizer that ``make`` makes."""
    with _add_param_group_unwrapped():
        return make()


def step(optimizer: Optimizer) -> None:
    """Update the parameters. The step of one of torch's own optimizers calls no hooks."""
    if _is_torchs(optimizer):
        with torch.no_grad():
            inspect.unwrap(type(optimizer).step)(optimizer)
    else:
        optimizer.step()


def state_dict(optimizer: Optimizer) -> dict[str, Any]:
    """As ``optimizer.state_dict()``."""
    if _is_torchs(optimizer):
        return inspect.unwrap(Optimizer.state_dict)(optimizer)
    return optimizer.state_dict()


def load_state_dict(optimizer: Optimizer, state: dict[str, Any]) -> None:
    """As ``optimizer.load_state_dict(state)``."""
    if _is_torchs(optimizer):
        inspect.unwrap(Optimizer.load_state_dict)(optimizer, state)
    else:
        optimizer.load_state_dict(state)


def _is_torchs(optimizer: Optimizer) -> bool:
    """Whether all that is wrapped around the optimizer's methods is torch's own."""
    return type(optimizer).__module__.startswith("torch.optim.")


@contextmanager
def _add_param_group_unwrapped() -> Iterator[None]:
    """Inside, the method that the constructor of every optimizer calls is unwrapped."""
    wrapped = Optimizer.add_param_group
    Optimizer.add_param_group = inspect.unwrap(wrapped)  # type: ignore[method-assign]
    try:
        yield
    finally:
        Optimizer.add_param_group = wrapped  # type: ignore[method-assign]
