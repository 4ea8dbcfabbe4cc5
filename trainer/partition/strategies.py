"""Ways to choose the cut points; each is a class that a yaml of the group ``partition`` names."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from trainer.errors import SettingError, at_least
from trainer.network import Network
from trainer.partition.cost import Costing, Costs, Counted, Machine, Measured, Timer
from trainer.partition.cuts import balance


@dataclass(frozen=True)
class Chosen:
    """Cut points, the costs by which they were chosen, and a word on how."""

    cuts: list[str]
    costs: Costs
    how: str


class Strategy(ABC):
    """A way to choose the cut points: unless it has another, the costliest block, local classifier included, is as
    cheap as can be.

    Attributes:
        how: what people are told of it.
    """

    how: str

    @abstractmethod
    def timer(self, device: torch.device) -> Timer:
        """What tells the costs on ``device``."""

    def choose(self, network: Network, blocks: int, batch_size: int, device: torch.device) -> Chosen:
        """Cut points for so many blocks."""
        costing = Costing(network, batch_size, self.timer(device))
        cuts = balanced_cuts(network.names, blocks, costing.anywhere())
        return Chosen(cuts, costing.at(cuts), self.how)

    def accept(self, cuts: list[str], how: str, network: Network, batch_size: int, device: torch.device) -> Chosen:
        """Cut points that were chosen elsewhere, ``how``."""
        return Chosen(cuts, Costing(network, batch_size, self.timer(device)).at(cuts), how)


class Balanced(Strategy):
    """Balanced by a counted cost."""

    how = "balanced by counted cost"

    def __init__(self, cpu: dict[str, float], cuda: dict[str, float]) -> None:
        """The coefficients of ``Machine`` for a rank on a CPU core and for one on a GPU."""
        for device, values in (("cpu", cpu), ("cuda", cuda)):
            for name, value in values.items():
                if value <= 0:
                    raise SettingError(f"partition.{device}.{name}={value} must be above 0")
        self._machines = {"cpu": Machine(**cpu), "cuda": Machine(**cuda)}

    def timer(self, device: torch.device) -> Timer:
        """One that counts."""
        return Counted(self._machines[device.type])


class Profiled(Strategy):
    """Balanced by measured times; ``partition.json`` keeps them, since another run may measure others."""

    how = "balanced by measured times"

    def __init__(self, repeats: int) -> None:
        """The median of ``repeats`` steps of each kind of unit counts."""
        at_least(1, {"partition.repeats": repeats})
        self._repeats = repeats

    def timer(self, device: torch.device) -> Timer:
        """One that measures on this rank's device."""
        return Measured(device, self._repeats)


class Even(Balanced):
    """As equal numbers of units as can be, whatever they cost."""

    how = "even numbers of units"

    def choose(self, network: Network, blocks: int, batch_size: int, device: torch.device) -> Chosen:
        """The earlier blocks are the larger ones where the numbers can't be equal."""
        names = network.names
        check_blocks(blocks, names)
        size, rest = divmod(len(names), blocks)
        ends = [(k + 1) * size + min(k + 1, rest) for k in range(blocks - 1)]
        cuts = [names[end - 1] for end in ends]
        return self.accept(cuts, self.how, network, batch_size, device)


def balanced_cuts(names: Sequence[str], blocks: int, costs: Costs) -> list[str]:
    """The cut points with the cheapest costliest block."""
    check_blocks(blocks, names)

    def cost(start: int, stop: int) -> float:
        return costs.block(list(names[start:stop]), last=stop == len(names))

    try:
        ends = balance(len(names), blocks, cost)
    except ValueError as error:
        raise SettingError(
            f"the model can't be cut into partition.blocks={blocks} blocks with this local loss: {error}"
        ) from error
    return [names[end - 1] for end in ends]


def check_blocks(blocks: int, names: Sequence[str]) -> None:
    """Raise ``SettingError`` unless the units make so many blocks."""
    if not 1 <= blocks <= len(names):
        raise SettingError(
            f"partition.blocks={blocks} is not possible: the model has {len(names)} units, so 1 to {len(names)} blocks"
        )


def check_points(points: Sequence[Any], names: Sequence[str]) -> list[str]:
    """The explicit cut points, checked; units may be numbers. Raises ``SettingError`` for an unknown or repeated one,
    for points out of order, and for the last unit, after which there is nothing to cut off."""
    for point in points:
        if isinstance(point, float):  # what was written may have been 1.10
            raise SettingError(
                f"partition.points names {point}, which reads as a number; put such a unit's name in quotes twice, "
                f"'partition.points=[\"{point}\"]'"
            )
    cuts = [str(point) for point in points]
    shown = f"partition.points=[{','.join(cuts)}]"
    for cut in cuts:
        if cut not in names:
            raise SettingError(f"{shown}: the model has no unit {cut}; its units are {', '.join(names)}")
        if cut == names[-1]:
            raise SettingError(
                f"{shown}: {cut} is the last unit, nothing follows it; cut after one of {', '.join(names[:-1])}"
            )
        if cuts.count(cut) > 1:
            raise SettingError(f"{shown}: {cut} is named more than once")
    order = [names.index(cut) for cut in cuts]
    if order != sorted(order):
        ordered = ",".join(sorted(cuts, key=names.index))
        raise SettingError(f"{shown} is out of order; in the order of the units it is [{ordered}]")
    return cuts
