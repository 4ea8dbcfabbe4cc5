"""Copies of a model's own units, for heads that look like the rest of the model."""

import copy
from typing import TypeVar

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from trainer.units import work_out_of_place

M = TypeVar("M", bound=nn.Module)


def trainable_copy(unit: M) -> M:
    """A copy with the weights of ``unit``. It works out of place: what it is given is a block's output, which goes to
    the next block as well."""
    copied = copy.deepcopy(unit)
    for module in copied.modules():
        work_out_of_place(module)
    return copied


def fresh_copy(unit: M) -> M:
    """A copy with initial weights of its own: those of ``unit`` in a random order, drawn from torch's global generator.
    Initial weights are independent draws of one distribution in each tensor, so the order makes them new ones of the
    same distribution, whatever the model's way of initialization; of trained ones that keeps their sizes alone."""
    copied = trainable_copy(unit)
    with torch.no_grad():
        for parameter in copied.parameters():
            order = torch.randperm(parameter.numel())
            parameter.copy_(parameter.flatten()[order].view(parameter.shape))
    for module in copied.modules():
        if isinstance(module, _NormBase):
            module.reset_running_stats()
    return copied


def frozen_copy(unit: M) -> M:
    """A copy whose parameters and running statistics neither an optimizer nor a forward changes: they need no gradient,
    though one flows through, and its batch norms normalize by the batch in training but leave their statistics to
    whoever sets them."""
    copied = trainable_copy(unit).requires_grad_(False)
    for module in copied.modules():
        if isinstance(module, _NormBase):
            module.momentum = 0.0
    return copied
