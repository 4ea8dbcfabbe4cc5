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


@torch.no_grad()
def step(optimizer: Optimizer) -> None:
    """Update the parameters. The step of one of torch's own optimizers calls no hooks."""
    _unwrapped(optimizer, "step")(optimizer)


def state_dict(optimizer: Optimizer) -> dict[str, Any]:
    """As ``optimizer.state_dict()``."""
    state: dict[str, Any] = _unwrapped(optimizer, "state_dict")(optimizer)
    return state


def load_state_dict(optimizer: Optimizer, state: dict[str, Any]) -> None:
    """As ``optimizer.load_state_dict(state)``."""
    _unwrapped(optimizer, "load_state_dict")(optimizer, state)


def _unwrapped(optimizer: Optimizer, name: str) -> Callable[..., Any]:
    """A method's function; what others than torch have wrapped around one stays."""
    function: Callable[..., Any] = getattr(type(optimizer), name)
    return inspect.unwrap(function) if type(optimizer).__module__.startswith("torch.optim.") else function


@contextmanager
def _add_param_group_unwrapped() -> Iterator[None]:
    """Inside, the method that the constructor of every optimizer calls is unwrapped."""
    wrapped = Optimizer.add_param_group
    Optimizer.add_param_group = inspect.unwrap(wrapped)  # type: ignore[method-assign]
    try:
        yield
    finally:
        Optimizer.add_param_group = wrapped  # type: ignore[method-assign]
