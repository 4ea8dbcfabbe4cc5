"""Channels that carry a unit's weights from its block to the one before, against the direction of the packets: a queue
within a process, a process group of its own between two ranks, through host memory.

What is sent arrives in that order and says of which step it is. Whether it is time to wait for it, the ends know.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from queue import SimpleQueue
from typing import Protocol

import torch
import torch.distributed as dist
from torch import Tensor

from trainer.packet import Field, Layout
from trainer.rank import Rank
from trainer.transport.connect import pair_groups
from trainer.transport.lost import lost_peer

NO_LIMIT = timedelta(days=365)
"""How long the process group waits: a message may lie there for as long as the other rank tests."""


class Channel(Protocol):
    """One way from one block to another."""

    def send(self, step: int, tensors: Mapping[str, Tensor]) -> None:
        """Send tensors in host memory that nobody changes, as they are after ``step``; may wait until they are taken.
        They have the same names, shapes and types each time."""
        ...

    def receive(self) -> tuple[int, dict[str, Tensor]]:
        """The next message, with its step; waits for it."""
        ...


class LocalChannel:
    """Between two blocks of one process."""

    def __init__(self) -> None:
        self._messages: SimpleQueue[tuple[int, dict[str, Tensor]]] = SimpleQueue()

    def send(self, step: int, tensors: Mapping[str, Tensor]) -> None:
        """Leave them."""
        self._messages.put((step, dict(tensors)))

    def receive(self) -> tuple[int, dict[str, Tensor]]:
        """The next message."""
        return self._messages.get()


class RemoteChannel:
    """One end of a channel between two ranks."""

    def __init__(self, unit: str, state: Mapping[str, Tensor], peer: int, group: dist.ProcessGroup) -> None:
        """``state`` shows what the messages about ``unit`` look like; ``peer`` is the other rank."""
        self._what, self._peer, self._group = f"the weights of {unit}", peer, group
        self._names = {f"weights.{name}": name for name in state}
        layout = Layout(Field(f"weights.{name}", tuple(value.shape), value.dtype) for name, value in state.items())
        self._buffer = torch.zeros(layout.nbytes, dtype=torch.uint8)
        self._views = layout.views(self._buffer)

    def send(self, step: int, tensors: Mapping[str, Tensor]) -> None:
        """Send, and wait until the other rank takes it."""
        self._views["header"][0] = step
        for view, name in self._names.items():
            self._views[view].copy_(tensors[name])
        with lost_peer(self._peer, f"{self._what} to be taken"):
            dist.send(self._buffer, self._peer, self._group)

    def receive(self) -> tuple[int, dict[str, Tensor]]:
        """The next message. Raises ``PeerError`` where the other rank goes away."""
        with lost_peer(self._peer, self._what):
            dist.recv(self._buffer, self._peer, self._group)
        step = int(self._views["header"][0])
        return step, {name: self._views[view].clone() for view, name in self._names.items()}


class Channels:
    """The channels of one rank, by the cut that each crosses."""

    def __init__(self, rank: Rank, owners: Sequence[int]) -> None:
        """``owners`` are the ranks of the blocks. Every rank makes this, since all of them make the groups."""
        self._rank, self._owners = rank.rank, owners
        self._local: dict[int, LocalChannel] = {}
        self._groups: dict[int, dist.ProcessGroup] = {}
        if len(set(owners)) > 1:
            self._groups = pair_groups(replace(rank, staged=rank.device.type == "cuda", timeout=NO_LIMIT))

    def across(self, cut: int, unit: str, state: Mapping[str, Tensor]) -> Channel:
        """This rank's end of the channel from block ``cut`` + 1 to block ``cut`` for the ``state`` of ``unit``."""
        before, behind = self._owners[cut], self._owners[cut + 1]
        if before == behind:
            return self._local.setdefault(cut, LocalChannel())
        peer = before if behind == self._rank else behind
        return RemoteChannel(unit, state, peer, self._groups[before])
