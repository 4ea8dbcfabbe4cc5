"""A learner's training state under global names, and how a learner takes it over again.

===================================  =================================================================
``<parameter or buffer>``            weights, as in ``model.safetensors``
``optimizer.<parameter>.<state>``    what the optimizer keeps for a parameter, such as ``exp_avg``, and as
                                     ``group_<name>`` what it has changed of the parameter's group
``gradient.<parameter>``             what steps have left for a later one, where gradients are accumulated
``published.<unit>.<step>.<name>``   weights that a neighbor has not yet applied
``meter.<cut>.<replica>.<term>...``  sums of the epoch's loss, accuracy and terms, of the block up to the cut
===================================  =================================================================
"""

import itertools
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from trainer.block import CLASSIFIERS
from trainer.checkpoint.manifest import CheckpointError
from trainer.checkpoint.reader import Weights
from trainer.learner import Learner
from trainer.optimizers import uncompiled
from trainer.update import AVERAGE, GROUP, SCALARS, Update

GRADIENT = "gradient."


def tensors_of(learner: Learner) -> dict[str, Tensor]:
    """Every tensor of a learner's training state that no other copy of it gives, not copied."""
    meter = {_meter_name(learner, learner.replica): learner.meter.sums}
    if learner.replica > 0:
        return meter
    gradients = {f"{GRADIENT}{name}": gradient for name, gradient in learner.update.pending().items()}
    return {**learner.state(), **learner.update.state(), **gradients, **learner.exchange_state(), **meter}


def scalars_of(learner: Learner) -> dict[str, Any]:
    """What the optimizer keeps that is no tensor. Raises ``CheckpointError`` for what JSON can't hold."""
    scalars = {name: value for name, value in learner.update.whole_state().items() if not isinstance(value, Tensor)}
    for name, value in scalars.items():
        if not isinstance(value, SCALARS):
            raise CheckpointError(
                f"optimizer._target_ gives one that keeps {name} as a {type(value).__name__}, which a checkpoint can't "
                f"hold; choose an optimizer whose state is tensors and numbers"
            )
    return scalars


@torch.no_grad()
def fill_weights(learner: Learner, store: Weights, origin: str) -> bool:
    """Take a learner's weights over. A local classifier that ``store`` has not, or has for another cut of the model,
    keeps its initial weights, but for copies of the model's units; gives whether that is so. Raises ``CheckpointError``
    for any other missing name, and for a shape that differs."""
    own = learner.state()
    heads = {name for name in own if name.startswith(f"{CLASSIFIERS}.")}
    fresh = any(name not in store or store.shape(name) != own[name].shape for name in heads)
    wanted = {name: name for name in own.keys() - (heads if fresh else set())}
    if fresh:
        wanted |= learner.copied_units()
    for name, origin_name in wanted.items():
        if origin_name not in store:
            raise CheckpointError(f"{origin} has no {origin_name}, which the model needs; is it of another model?")
        value = store.read(origin_name)
        if value.shape != own[name].shape or value.dtype != own[name].dtype:
            raise CheckpointError(
                f"{origin} has {name} as {value.dtype} of shape {tuple(value.shape)}; the model's is {own[name].dtype} "
                f"of shape {tuple(own[name].shape)}"
            )
        own[name].copy_(value)
    return fresh


@torch.no_grad()
def fill_training(
    learner: Learner, store: Weights, names: Mapping[str, list[str]], fresh: bool, inside_batch: bool
) -> None:
    """Take over what a learner needs beyond its weights to go on training.

    ``names`` are the optimizer's state names in ``store`` by parameter; the classifier is left out where it is
    ``fresh``, and gradients of a batch that is not to be gone on with (``inside_batch``).
    """
    update = learner.update
    known = {name for name in update.parameters if not (fresh and name.startswith(f"{CLASSIFIERS}."))}
    _fill_optimizer(update, store, {name: [key for key in names.get(name, []) if key != AVERAGE] for name in known})
    if update.options.average is not None:
        for name in known:
            if AVERAGE in names.get(name, []):
                parameter = update.parameters[name]
                update.optimizer.state[parameter][AVERAGE] = _value(store, f"optimizer.{name}.{AVERAGE}", parameter)
    if inside_batch:
        update.restore({name: store.read(GRADIENT + name) for name in known if GRADIENT + name in store})
    _fill_meter(learner, store)


def _fill_optimizer(update: Update, store: Weights, names: Mapping[str, list[str]]) -> None:
    """Take over the optimizer's own state, of which ``names`` tells what there is of each parameter."""
    state = uncompiled.state_dict(update.optimizer)
    pattern: dict[str, Any] = {}
    without: list[tuple[int, nn.Parameter]] = []
    groups = {index: group for group in state["param_groups"] for index in group["params"]}
    for index, (name, parameter) in enumerate(update.parameters.items()):
        kept = {key: _value(store, f"optimizer.{name}.{key}", parameter) for key in names.get(name, [])}
        own = {key: value for key, value in kept.items() if not key.startswith(GROUP)}
        of_group = {key.removeprefix(GROUP): kept[key] for key in kept.keys() - own.keys()}
        groups[index] |= {key: _on(parameter.device, value) for key, value in of_group.items()}
        if own:
            state["state"][index] = pattern = own
        elif index not in state["state"]:
            without.append((index, parameter))
    state["state"] |= {index: _beginning(pattern, parameter) for index, parameter in without}
    uncompiled.load_state_dict(update.optimizer, state)


def _fill_meter(learner: Learner, store: Weights) -> None:
    """Take over what all copies of a learner have counted; the first of them does it for all. What was counted of a
    loss with other terms goes by another name, and the means of this epoch are then those of its remaining steps."""
    if learner.replica > 0:
        return
    counted = itertools.takewhile(store.__contains__, (_meter_name(learner, copy) for copy in itertools.count()))
    for name in counted:
        sums, own = store.read(name), learner.meter.sums
        if sums.shape != own.shape:
            raise CheckpointError(f"{name} has the shape {tuple(sums.shape)}, not {tuple(own.shape)}")
        own += sums.to(own.device)


def _meter_name(learner: Learner, replica: int) -> str:
    return ".".join(("meter", learner.cut, str(replica), *learner.meter.terms))


def _value(store: Weights, name: str, parameter: nn.Parameter) -> Any:
    """One entry of an optimizer's state. A tensor of the parameter's shape gets its memory layout too: a fused
    optimizer walks through both as flat arrays."""
    if name in store.scalars:
        return store.scalars[name]
    value = store.read(name)
    if value.shape == parameter.shape:
        return torch.empty_like(parameter, dtype=value.dtype).copy_(value)
    return value.clone()  # an optimizer keeps it, and with it would keep the file that it lies in


def _on(device: torch.device, value: Any) -> Any:
    """A tensor on ``device``, where torch itself leaves it as it is; a number as it is."""
    return value.to(device) if isinstance(value, Tensor) else value


def _beginning(pattern: Mapping[str, Any], parameter: nn.Parameter) -> dict[str, Any]:
    """What an optimizer that keeps state like ``pattern`` has for a ``parameter`` that it has never stepped: nothing,
    which it lays out in the parameter's first step. Only a fused SGD wants momentum for all parameters or none: zero,
    which is what its momentum begins with."""
    if pattern.keys() == {"momentum_buffer"}:
        return {"momentum_buffer": torch.zeros_like(parameter)}
    return {}
