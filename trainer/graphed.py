"""A block whose training step is replayed as two CUDA graphs, its forward and its backward.

A small block costs the host more time to queue, kernel by kernel, than the device to compute; a graph queues it at
once. The optimizer's few kernels stay outside, since the learning rate is the host's.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from trainer.block import Block, Output
from trainer.errors import SettingError
from trainer.local_losses.base import Judged
from trainer.packet import Packet, Tag
from trainer.seeds import seed_device

T = TypeVar("T")

ORDINARY_STEPS = 3
"""Steps done kernel by kernel before the first graph: they load kernels and choose algorithms, which a graph can't."""


@dataclass
class Recorded:
    """A graph, and what it leaves in the same memory each time."""

    graph: torch.cuda.CUDAGraph
    result: Any


class GraphedBlock(Block):
    """A block on a GPU that draws no random numbers; those of a graph are not the ones that the step would draw."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        """As a ``Block``."""
        super().__init__(*arguments, **options)
        self._steps, self._recording = 0, False
        self._forward: Recorded | None = None
        self._backward: Recorded | None = None
        self._pool = torch.cuda.graph_pool_handle()
        self._static: dict[str, Tensor] = {}
        self._gradients: dict[nn.Parameter, Tensor] = {}

    def forward(self, packet: Packet) -> Output:
        """Run the units on ``packet["x"]``, ``(N, ...)``. What is given of a training step holds until the next one."""
        if self._testing:
            return super().forward(packet)
        self._steps += 1
        if self._steps <= ORDINARY_STEPS:
            return super().forward(packet)
        if not self._static:
            self._static = {name: tensor.clone() for name, tensor in packet.fields.items()}
        for name, tensor in self._static.items():
            tensor.copy_(packet[name], non_blocking=True)
        incoming = Packet(packet.tag, self._static)
        if self._forward is None:
            self._forward = self._record(lambda: super(GraphedBlock, self).forward(incoming))
        made: Output = self._replay(self._forward)
        return Output(packet.tag, {**packet.fields, "x": made["x"]}, incoming=incoming, features=made.features)

    def differentiate(self, output: Output) -> Judged:
        """Judge what ``forward`` gave last, and leave the gradients with the parameters."""
        if self._forward is None:
            return super().differentiate(output)
        if self._backward is None:
            self._backward = self._record(lambda: super(GraphedBlock, self).differentiate(output))
            self._forward.result.features = output.features
            parameters = self.update.parameters.values()
            self._gradients = {value: value.grad for value in parameters if value.grad is not None}
        judged: Judged = self._replay(self._backward)
        for parameter, gradient in self._gradients.items():
            parameter.grad = gradient
        return judged

    def _record(self, work: Callable[[], T]) -> Recorded:
        """A graph of ``work``, which is not done by that. Raises ``SettingError`` where it waits for the device."""
        graph = torch.cuda.CUDAGraph()
        self._recording = True
        try:
            # Other threads ask meanwhile whether the device has got somewhere; that is no part of this.
            with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
                result = work()
        except RuntimeError as error:
            raise SettingError(
                f"cuda_graphs=true, but block {self.index} (up to {self.cut}) does what a CUDA graph can't hold, such "
                f"as waiting for the device; set cuda_graphs=false ({str(error).splitlines()[0]})"
            ) from error
        finally:
            self._recording = False
        return Recorded(graph, result)

    def _replay(self, recorded: Recorded) -> Any:
        """Do what was recorded. Raises ``SettingError`` where that draws random numbers."""
        seed_device(self.device, 0)
        recorded.graph.replay()
        if torch.cuda.default_generators[self.device.index or 0].get_offset():
            raise SettingError(
                f"cuda_graphs=true, but block {self.index} (up to {self.cut}) draws random numbers, as dropout does; "
                f"set cuda_graphs=false"
            )
        return recorded.result

    def _seed(self, tag: Tag, *unit: str | int) -> None:
        """Seed, but for a graph, which holds no seed."""
        if not self._recording:
            super()._seed(tag, *unit)
