"""Models as sequences of named units, the pieces between which a network may be cut.

A model is an ``nn.Sequential``. Nested plain ``nn.Sequential``s are opened up, so a model written in the usual way,
``Sequential(stem, layer1=Sequential(block, block), head)``, has the units ``stem``, ``layer1.0``, ``layer1.1`` and
``head``, and a unit's name is the prefix of its parameters' names. A subclass of ``nn.Sequential`` is one unit. Where
parameters shall go by another prefix, a unit says so in an attribute ``parameter_prefix``.
"""

from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from trainer.errors import SettingError
from trainer.seeds import seeded

M = TypeVar("M", bound=nn.Module)

Units = dict[str, nn.Module]
"""Units by name, in the order in which an image passes through them."""


def build_model(make: Callable[[], Any], seed: int) -> nn.Sequential:
    """Build a model with initial weights that depend on ``seed`` and the model's settings alone.

    The whole model is built on the CPU, wherever and by whomever only a part is needed: so any ``nn.Sequential`` works,
    whatever its constructor draws, and no partition can change what it draws.
    """
    with seeded(seed, "model"):
        model = make()
    if not isinstance(model, nn.Sequential):
        raise SettingError(
            f"the model is a {type(model).__name__}, which can't be cut; model._target_ must give an nn.Sequential"
        )
    if type(model).forward is not nn.Sequential.forward:
        raise SettingError(
            f"the model is a {type(model).__name__} with a forward of its own, which can't be cut; model._target_ must "
            f"give an nn.Sequential that calls its modules in turn"
        )
    return model


def units_of(model: nn.Sequential) -> Units:
    """The units of ``model`` by name, in order."""
    return dict(_walk(model, ""))


def _walk(module: nn.Sequential, prefix: str) -> Iterator[tuple[str, nn.Module]]:
    for name, child in module._modules.items():  # named_children leaves out a module that comes a second time
        assert child is not None
        if type(child) is nn.Sequential and len(child):
            yield from _walk(child, f"{prefix}{name}.")
        else:
            yield prefix + name, child


def placed(module: M, device: torch.device) -> M:
    """``module`` on ``device``, its convolutions channels-last like the activations between units."""
    return module.to(device).to(memory_format=torch.channels_last)


def work_out_of_place(layer: nn.Module) -> None:
    """Let a layer that writes its output over its input, such as an activation, leave the input alone."""
    if getattr(layer, "inplace", False):
        layer.inplace = False  # type: ignore[assignment]


def nested(units: Units) -> nn.Sequential:
    """The model whose units these are: the inverse of ``units_of``. Dots in names become nested ``nn.Sequential``s."""
    model = nn.Sequential()
    for name, unit in units.items():
        *path, last = name.split(".")
        parent = model
        for part in path:
            if part not in parent._modules:
                parent.add_module(part, nn.Sequential())
            parent = parent.get_submodule(part)  # type: ignore[assignment]
        parent.add_module(last, unit)
    return model


def named_state(units: Units) -> dict[str, Tensor]:
    """Parameters and buffers of ``units`` under the names they have in the whole model."""
    return {
        global_name(unit, module, key): value
        for unit, module in units.items()
        for key, value in module.state_dict().items()
    }


def named_parameters(units: Units) -> dict[str, nn.Parameter]:
    """Parameters of ``units`` under the names they have in the whole model; one that several units share, under the
    first of its names."""
    parameters: dict[nn.Parameter, str] = {}
    for unit, module in units.items():
        for key, parameter in module.named_parameters():
            parameters.setdefault(parameter, global_name(unit, module, key))
    return {name: parameter for parameter, name in parameters.items()}


def tied(units: Units, others: Units) -> tuple[str, str] | None:
    """The names of a parameter or buffer that one of ``units`` shares with one of ``others``, or None."""
    names = {tensor.data_ptr(): name for name, tensor in named_state(units).items() if tensor.numel()}
    for name, tensor in named_state(others).items():
        if tensor.numel() and tensor.data_ptr() in names:
            return names[tensor.data_ptr()], name
    return None


def global_name(unit: str, module: nn.Module, name: str) -> str:
    """The name in the whole model of what its unit calls ``name``, a parameter or buffer."""
    prefix = getattr(module, "parameter_prefix", unit)
    return f"{prefix}.{name}" if prefix else name
