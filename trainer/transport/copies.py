"""Copies of one block's modules on several ranks: torch's DistributedDataParallel averages their gradients while the
backward goes on."""

import warnings
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from trainer.packet import Packet
from trainer.transport.lost import lost_group

Made = TypeVar("Made")
"""What a forward makes of a packet."""


class Copies(Generic[Made]):
    """One rank's copy. Every rank of the group makes it and calls its methods in the same order; they raise
    ``PeerError`` where a rank is lost."""

    def __init__(
        self, modules: Sequence[nn.Module], forward: Callable[[Packet], Made], group: dist.ProcessGroup
    ) -> None:
        """``forward`` is what runs the ``modules``."""
        self._modules, self._group = modules, group
        with lost_group("the start"), warnings.catch_warnings():
            # torch 2.15 has another name for the argument, which older ones do not know.
            warnings.simplefilter("ignore", FutureWarning)
            self._averaging = DistributedDataParallel(
                _Called(modules, forward), process_group=group, broadcast_buffers=False
            )
            self._lay_out()

    def _lay_out(self) -> None:
        """Let the first backward be one of nothing, after which DistributedDataParallel lays out for good where in its
        messages a gradient goes. How a sum over three ranks or more is rounded depends on that, and a run that goes on
        must not have another layout in its first step than one that was never stopped. Gradients that a checkpoint has
        left, from the middle of an update, stay as they are."""
        left = [(parameter, parameter.grad) for parameter in self._averaging.parameters()]
        for parameter, _ in left:
            parameter.grad = None
        self._averaging(None).backward()
        for parameter, gradient in left:
            parameter.grad = gradient

    def forward(self, packet: Packet) -> Made:
        """``forward`` on this rank's share of a batch, after whose backward the gradients are the copies' mean."""
        with lost_group(f"train step {packet.tag.step}"):
            made: Made = self._averaging(packet)
        return made

    def share_buffers(self) -> None:
        """Give every copy the first one's buffers, such as running statistics."""
        with lost_group("the start of a test"):
            for module in self._modules:
                for buffer in module.buffers():
                    dist.broadcast(buffer, 0, self._group)


class _Called(nn.Module):
    """Modules and what runs them as the one module that DistributedDataParallel takes."""

    def __init__(self, modules: Sequence[nn.Module], forward: Callable[[Packet], Any]) -> None:
        super().__init__()
        self.parts = nn.ModuleList(modules)
        self._forward = forward

    def forward(self, packet: Packet | None) -> Any:
        """What runs them; without a packet a scalar that all that is trained has a part in."""
        if packet is None:
            return torch.stack([p.sum() for p in self.parameters() if p.requires_grad]).sum()
        return self._forward(packet)
