"""A block whose training step is replayed as two CUDA graphs, its forward and its backward.

A small block costs the host more time to queue, kernel by kernel, than the device to compute; a graph queues it at
once. The optimizer's few kernels stay outside, since the learning rate is the host's.
"""

import gc
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from trainer.block import CLASSIFIERS, Block
from trainer.learner import Output
from trainer.errors import SettingError
from trainer.local_losses.base import LossOutput
from trainer.packet import Packet, Tag

T = TypeVar("T")

ORDINARY_STEPS = 3
"""Steps done kernel by kernel before the first graph: they load kernels and choose algorithms, which a graph can't."""


@dataclass
class Recorded:
    """A graph, and what it leaves in the same memory each time."""

    graph: torch.cuda.CUDAGraph
    result: Any

    def replay(self) -> Any:
        """Do what was recorded, with the seed that has been set."""
        self.graph.replay()
        return self.result


class GraphedBlock(Block):
    """A block on a GPU. Python runs its units and its classifier in the first steps, and once more to record them: what
    they decide then holds for all steps that follow. Random numbers are drawn for the block and for its classifier, not
    unit by unit, in the first steps too."""

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
        self._seed(packet.tag, next(iter(self.units)))
        made: Output = self._forward.replay()
        return Output(packet.tag, {**packet.fields, "x": made["x"]}, incoming=incoming, features=made.features)

    def differentiate(self, output: Output) -> LossOutput:
        """Judge what ``forward`` gave last, and leave the gradients with the parameters."""
        if self._forward is None:
            return super().differentiate(output)
        if self._backward is None:
            self._backward = self._record(lambda: super(GraphedBlock, self).differentiate(output))
            self._forward.result.features = output.features
            parameters = self.update.parameters.values()
            self._gradients = {value: value.grad for value in parameters if value.grad is not None}
        self._seed(output.tag, f"{CLASSIFIERS}.{self.cut}")
        result: LossOutput = self._backward.replay()
        for parameter, gradient in self._gradients.items():
            parameter.grad = gradient
        terms = {name: term.clone() for name, term in result.terms.items()}
        return LossOutput(result.loss.clone(), result.logits, terms)  # the meter keeps numbers for some steps

    def _record(self, work: Callable[[], T]) -> Recorded:
        """A graph of ``work``, which is not done by that. Raises ``SettingError`` where it waits for the device."""
        gc.collect()  # an earlier job's graphs and their memory, which must not be freed in the middle of this
        graph = torch.cuda.CUDAGraph()
        self._recording = True
        try:
            # Other threads ask meanwhile whether the device has got somewhere; that is no part of this.
            with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
                result = work()
        except RuntimeError as error:
            cause = error.__context__ or error  # the end of a recording that has failed raises again
            if isinstance(cause, torch.OutOfMemoryError):
                raise cause from None
            raise SettingError(
                f"cuda_graphs=true, but block {self.index} (up to {self.cut}) does what a CUDA graph can't hold, such "
                f"as waiting for the device; set cuda_graphs=false ({str(cause).splitlines()[0]})"
            ) from error
        finally:
            self._recording = False
        torch.cuda.synchronize(self.device)  # the recording has set seeds on a stream of its own
        return Recorded(graph, result)

    def _seed(self, tag: Tag, *unit: str | int) -> None:
        """Seed before the first unit and before the classifier, and outside of a graph, which holds no seed."""
        if not self._recording and unit[0] in (next(iter(self.units)), f"{CLASSIFIERS}.{self.cut}"):
            super()._seed(tag, *unit)
