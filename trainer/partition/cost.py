"""What a training step of each unit and of each local classifier costs, counted or measured.

Counting runs forward and backward on the meta device, which computes nothing but sees every operator: floating-point
operations by torch's own formulas, and the bytes that operators read and write. On a CPU and on small images the early,
wide feature maps of a convolutional network are bound by memory, which arithmetic alone does not show.
"""

import copy
import math
import statistics
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from trainer.data.source import data_fields
from trainer.errors import SettingError
from trainer.meta import META, Shapes, on_meta, without_values
from trainer.network import Network
from trainer.packet import Kind, Packet, Tag
from trainer.units import placed

OPTIMIZER_PASSES = 5
"""How often an optimizer step touches each parameter's size in memory: it reads the weight, the gradient and the
momentum, and writes the weight and the momentum."""


@dataclass(frozen=True)
class Machine:
    """The two coefficients of the counted cost: arithmetic in Gflop/s and memory traffic in GB/s of one rank."""

    gflops: float
    gbytes_per_second: float

    def seconds(self, flops: float, nbytes: float) -> float:
        """The time for so many operations and bytes."""
        return flops / (self.gflops * 1e9) + nbytes / (self.gbytes_per_second * 1e9)


@dataclass(frozen=True)
class Costs:
    """Seconds of one training step, by unit name.

    Attributes:
        first: of a unit that begins a block, whose input needs no gradient.
        inner: of any other unit.
        classifier: of the local classifier after a unit, for the units that were asked for; infinite where the local
            loss has none for its features.
    """

    first: dict[str, float]
    inner: dict[str, float]
    classifier: dict[str, float]

    def block(self, units: list[str], last: bool) -> float:
        """Seconds of a block of ``units``, with its classifier unless it is the ``last``."""
        body = self.first[units[0]] + sum(self.inner[name] for name in units[1:])
        return body + (0.0 if last else self.classifier[units[-1]])


class Timer(ABC):
    """Tells the seconds of a training step of a module; of modules alike once, since a model is made of few kinds."""

    def __init__(self, device: torch.device) -> None:
        """``device`` is where modules and their inputs have to be."""
        self.device = device
        self._known: dict[Any, float] = {}

    def seconds(self, module: nn.Module, x: Tensor, forward: Callable[[], Tensor]) -> float:
        """The time for an input ``x``, of which ``forward`` computes the output: a loss, or anything."""
        kind = (repr(module), *(p.shape for p in module.parameters()), x.shape, x.requires_grad)
        if kind not in self._known:
            self._known[kind] = self._seconds(module, forward)
        return self._known[kind]

    @abstractmethod
    def _seconds(self, module: nn.Module, forward: Callable[[], Tensor]) -> float: ...


class Counted(Timer):
    """By counting: the same on every machine, in no time."""

    def __init__(self, machine: Machine) -> None:
        super().__init__(META)
        self._machine = machine

    def _seconds(self, module: nn.Module, forward: Callable[[], Tensor]) -> float:
        with without_values("set partition=profiled"):
            work = count(module, forward)
        return self._machine.seconds(work.flops, work.nbytes)


class Measured(Timer):
    """By the clock: the median of ``repeats`` steps."""

    def __init__(self, device: torch.device, repeats: int) -> None:
        super().__init__(device)
        self._repeats = repeats

    def _seconds(self, module: nn.Module, forward: Callable[[], Tensor]) -> float:
        optimizer = (
            torch.optim.SGD(module.parameters(), 0.0, momentum=0.9) if any(True for _ in module.parameters()) else None
        )
        seconds = []
        for _ in range(self._repeats + 1):
            begin = _now(self.device)
            _backward(forward())
            if optimizer is not None:
                optimizer.step()
                optimizer.zero_grad()
            torch.clear_autocast_cache()  # every step casts its weights
            seconds.append(_now(self.device) - begin)
        return statistics.median(seconds[1:])


class Costing:
    """What the pieces of a network cost at so many images a step, by a timer."""

    def __init__(self, network: Network, batch_size: int, timer: Timer) -> None:
        """Finds what every unit costs."""
        self._network, self._timer = network, timer
        self._packet = blank_packet(network, batch_size, timer.device)
        self._first: dict[str, float] = {}
        self._inner: dict[str, float] = {}
        self._outputs: dict[str, Tensor] = {}  # of every unit, without values, which would fill the memory
        x = self._packet["x"]
        for name, unit in network.units.items():
            unit = placed(on_meta(unit) if timer.device == META else copy.deepcopy(unit), timer.device)
            self._first[name] = timer.seconds(unit, x, lambda unit=unit, x=x: unit(x))  # type: ignore[misc]
            wanting = x.clone().requires_grad_()
            self._inner[name] = timer.seconds(unit, wanting, lambda unit=unit, x=wanting: unit(x))  # type: ignore[misc]
            with torch.no_grad(), Shapes():
                x = unit(x)
            self._outputs[name] = x.to(META)

    def at(self, cuts: Sequence[str]) -> Costs:
        """The costs where the network is cut after each of ``cuts``."""
        return Costs(self._first, self._inner, {cut: self._classifier(cut, cuts) for cut in cuts})

    def anywhere(self) -> Costs:
        """The costs while nothing is cut: of a classifier after every unit but the last, each as if it were alone."""
        classifiers = {cut: self._classifier(cut, [cut]) for cut in self._network.names[:-1]}
        return Costs(self._first, self._inner, classifiers)

    def _classifier(self, cut: str, cuts: Sequence[str]) -> float:
        device, index = self._timer.device, list(cuts).index(cut)
        try:
            # On the meta device a head takes no memory, however absurdly large it would be here.
            with device if device == META else nullcontext():
                classifier = placed(self._network.classifier(cut, cuts), device)
        except SettingError:
            return math.inf
        packet = self._packet
        if index:
            entering = torch.zeros_like(self._outputs[cuts[index - 1]], device=device)
            packet = Packet(packet.tag, {**packet.fields, "x": entering})
        features = torch.zeros_like(self._outputs[cut], device=device).requires_grad_()
        return self._timer.seconds(classifier, features, lambda: classifier.compute_loss(features, packet).loss)


def blank_packet(network: Network, batch_size: int, device: torch.device) -> Packet:
    """A packet of black images of class 0, with every field that a dataset offers."""
    fields = {}
    for field in data_fields(network.spec, batch_size).values():
        fields[field.name] = field.view(torch.zeros(field.nbytes, dtype=torch.uint8)).to(device)
    return Packet(Tag(Kind.TRAIN, 1, batch_size), fields)


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def _backward(output: Tensor) -> None:
    if output.requires_grad:
        output.backward(torch.ones_like(output))


@dataclass(frozen=True)
class Work:
    """One training step of a module: operations, bytes moved, bytes of activations kept for the backward."""

    flops: int
    nbytes: int
    kept_bytes: int


def count(module: nn.Module, forward: Callable[[], Tensor]) -> Work:
    """Count a training step of ``module`` on the meta device: forward, backward and optimizer."""
    parameters = list(module.parameters())
    own = {_storage(tensor) for tensor in (*parameters, *module.buffers())}
    kept: dict[int, Tensor] = {}  # by storage: a view of what is kept anyway costs nothing

    def keep(tensor: Tensor) -> Tensor:
        if _storage(tensor) not in own:
            kept[_storage(tensor)] = tensor
        return tensor

    counter = _Counter()
    saved: AbstractContextManager[Any] = torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor)
    with counter, saved if parameters else nullcontext():
        _backward(forward())
    optimizer = OPTIMIZER_PASSES * sum(parameter.nbytes for parameter in parameters if parameter.requires_grad)
    module.zero_grad()
    return Work(
        counter.flops,
        counter.nbytes + optimizer,
        sum(tensor.untyped_storage().nbytes() for tensor in kept.values()),
    )


def _storage(tensor: Tensor) -> int:
    """What tells storages apart; those on the meta device have no address."""
    return tensor.untyped_storage()._cdata


class _Counter(Shapes):
    """Adds up floating-point operations, by the formulas of torch's ``FlopCounterMode``, and the bytes of the tensors
    that operators read and write; views move nothing. One mode, since each takes longer than an operator."""

    def __init__(self) -> None:
        from torch.utils.flop_counter import FlopCounterMode  # imports triton, and only rank 0 counts

        super().__init__()
        self.flops = self.nbytes = 0
        self._formulas = FlopCounterMode(display=False).flop_registry

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        out = self.shapes(func, args, kwargs)
        if func.overloadpacket in self._formulas:
            self.flops += self._formulas[func.overloadpacket](*args, **kwargs, out_val=out)
        if not func.is_view:
            tensors = {id(leaf): leaf for leaf in tree_leaves((args, kwargs, out)) if isinstance(leaf, Tensor)}
            self.nbytes += sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
        return out
