"""The partition of a run: blocks, their costs, and the rank that owns each."""

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from torch import nn

from trainer.errors import SettingError
from trainer.network import Network
from trainer.partition.cost import Costs
from trainer.partition.cuts import balance
from trainer.partition.strategies import Chosen
from trainer.units import Units, named_parameters, tied


@dataclass(frozen=True)
class BlockPlan:
    """One block: its units, parameters with and without the local classifier, estimated seconds a step, its rank."""

    units: list[str]
    parameters: int
    classifier_parameters: int
    cost_seconds: float
    rank: int


@dataclass(frozen=True)
class Partition:
    """The cut points of a run and what follows from them; kept in ``partition.json``."""

    cut_points: list[str]
    how: str
    blocks: list[BlockPlan]
    costs: Costs

    @classmethod
    def of(cls, network: Network, chosen: Chosen, place: Callable[[Sequence[float]], list[int]]) -> "Partition":
        """The partition of chosen cuts; ``place`` gives each block's rank by the blocks' costs. Raises
        ``SettingError`` where the local loss has no classifier for a cut, where blocks would share a parameter, which
        each of them trains from its own loss, and where one has none to train."""
        pieces = network.split(chosen.cuts)
        _refuse_cut_ties(pieces, chosen.cuts)
        names = [list(piece) for piece in pieces]
        # First, since a cut where the local loss has none has no finite cost to place blocks by.
        classifiers = [network.classifier(units[-1], chosen.cuts) for units in names]
        seconds = [chosen.costs.block(units, units is names[-1]) for units in names]
        blocks = []
        for units, piece, classifier, cost, rank in zip(
            names, pieces, classifiers, seconds, place(seconds), strict=True
        ):
            _refuse_untrainable(units[-1], (*piece.values(), classifier))
            own = sum(parameter.numel() for parameter in named_parameters(piece).values())
            extra = sum(parameter.numel() for parameter in classifier.parameters())
            blocks.append(BlockPlan(units, own, extra, cost, rank))
        return cls(chosen.cuts, chosen.how, blocks, chosen.costs)

    def to_json(self) -> dict[str, Any]:
        """For ``partition.json`` and for other ranks; the cost of a classifier that can't be is null, since JSON has no
        infinity."""
        value, classifier = asdict(self), self.costs.classifier
        known = {unit: cost if math.isfinite(cost) else None for unit, cost in classifier.items()}
        value["costs"]["classifier"] = known
        return value

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "Partition":
        """What ``to_json`` gave."""
        blocks = [BlockPlan(**block) for block in value["blocks"]]
        classifier = {unit: math.inf if cost is None else cost for unit, cost in value["costs"]["classifier"].items()}
        return cls(value["cut_points"], value["how"], blocks, Costs(**{**value["costs"], "classifier": classifier}))


def _refuse_untrainable(end: str, modules: Sequence[nn.Module]) -> None:
    if not any(parameter.requires_grad for module in modules for parameter in module.parameters()):
        raise SettingError(
            f"the block that ends with {end} has nothing to train, neither in its units nor in its local classifier; "
            f"cut elsewhere, or set another partition.blocks"
        )


def _refuse_cut_ties(pieces: Sequence[Units], cuts: Sequence[str]) -> None:
    for first, second in itertools.combinations(pieces, 2):
        if (names := tied(first, second)) is not None:
            raise SettingError(
                f"the model ties {names[0]} to {names[1]}, so they have to be in one block, but it is cut after "
                f"{', '.join(cuts)}; set partition.points to cuts that do not lie between them"
            )


def place(seconds: Sequence[float], ranks: int) -> list[int]:
    """The rank of each block: runs of neighboring blocks, so that packets only ever go to the next rank, and the
    costliest rank as cheap as can be. Raises ``SettingError`` where there are fewer blocks than ranks."""
    if len(seconds) < ranks:
        raise SettingError(
            f"{ranks} ranks need at least one block each, but the number of blocks is {len(seconds)}; start as many "
            f"ranks with --nproc_per_node={len(seconds)}, or set partition.blocks={ranks}, and partition.points=null "
            f"where a recipe has points"
        )
    ends = balance(len(seconds), ranks, lambda start, stop: sum(seconds[start:stop]))
    return [sum(block >= end for end in ends) for block in range(len(seconds))]
