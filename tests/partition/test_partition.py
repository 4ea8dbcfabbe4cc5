"""Choosing cut points, and placing blocks on ranks."""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import nn

from trainer.data.images import DataSpec
from trainer.errors import SettingError
from trainer.local_losses.base import LocalClassifier, Site
from trainer.local_losses.greedy import Greedy
from trainer.local_losses.overlap import Overlap
from trainer.network import Network
from trainer.partition.cost import Costing
from trainer.partition.partition import Partition, place
from trainer.partition.strategies import Balanced, Even, Profiled, check_points

MACHINES = {"cpu": {"gflops": 250, "gbytes_per_second": 10}, "cuda": {"gflops": 1, "gbytes_per_second": 1}}
CPU = torch.device("cpu")


def on(ranks: int) -> Callable[[Sequence[float]], list[int]]:
    return partial(place, ranks=ranks)


def test_balanced_cuts_are_the_cheapest_and_repeat(network: Network) -> None:
    strategy = Balanced(**MACHINES)
    chosen = strategy.choose(network, 3, 16, CPU)
    assert chosen == strategy.choose(network, 3, 16, CPU)
    worst = max(block.cost_seconds for block in Partition.of(network, chosen, on(1)).blocks)
    names, costs = network.names, Costing(network, 16, strategy.timer(CPU)).anywhere()
    for first in range(1, len(names) - 1):
        for second in range(first + 1, len(names)):
            pieces = [names[:first], names[first:second], names[second:]]
            assert worst <= max(costs.block(piece, piece is pieces[-1]) for piece in pieces) + 1e-12


def test_a_cut_without_a_classifier_says_what_the_local_loss_says(network: Network) -> None:
    class Picky(Greedy):
        def classifier(self, site: Site) -> LocalClassifier:
            if site.name == "stem":
                raise SettingError("local_loss=picky has no head here")
            return super().classifier(site)

    picky = replace(network, local_loss=Picky())
    chosen = Balanced(**MACHINES).accept(["stem"], "explicit cut points", picky, 16, CPU)
    with pytest.raises(SettingError, match="local_loss=picky has no head here"):
        Partition.of(picky, chosen, on(1))


def test_even_cuts_have_equal_numbers_of_units(network: Network) -> None:
    chosen = Even(**MACHINES).choose(network, 2, 16, CPU)
    assert [len(block.units) for block in Partition.of(network, chosen, on(2)).blocks] == [3, 2]


def test_profiled_cuts_say_how_they_were_found(network: Network) -> None:
    chosen = Profiled(repeats=1).choose(network, 2, 16, CPU)
    partition = Partition.of(network, chosen, on(2))
    again = Partition.from_json(json.loads(json.dumps(partition.to_json())))
    assert again == partition and again.how == "balanced by measured times" and len(again.costs.inner) == 5


def test_a_partition_counts_every_parameter_once(network: Network) -> None:
    partition = Partition.of(network, Balanced(**MACHINES).choose(network, 3, 16, CPU), on(3))
    total = sum(parameter.numel() for unit in network.units.values() for parameter in unit.parameters())
    assert sum(block.parameters for block in partition.blocks) == total
    assert partition.blocks[-1].classifier_parameters == 0 < partition.blocks[0].classifier_parameters
    assert [unit for block in partition.blocks for unit in block.units] == network.names


@pytest.mark.parametrize(
    ("seconds", "ranks", "owners"),
    [
        ([1, 1, 1, 1], 4, [0, 1, 2, 3]),
        ([1, 1, 1, 1], 2, [0, 0, 1, 1]),
        ([1, 1, 1, 5], 2, [0, 0, 0, 1]),
        ([3, 1, 1, 1], 3, [0, 1, 2, 2]),
        ([2, 2], 1, [0, 0]),
    ],
)
def test_neighboring_blocks_share_a_rank(seconds: list[float], ranks: int, owners: list[int]) -> None:
    assert place(seconds, ranks) == owners


def test_fewer_blocks_than_ranks_are_refused() -> None:
    with pytest.raises(
        SettingError, match="4 ranks need .* the number of blocks is 2; .*--nproc_per_node=2, or set partition.blocks=4"
    ):
        place([1, 1], 4)


NAMES = ["stem", "a.0", "a.1", "head"]


@pytest.mark.parametrize(
    ("points", "message"),
    [
        (["b"], r"partition.points=\[b\]: the model has no unit b; its units are stem, a.0, a.1, head"),
        (["stem", "stem"], r"stem is named more than once"),
        (["a.1", "stem"], r"is out of order; in the order of the units it is \[stem,a.1\]"),
        (["head"], r"head is the last unit, nothing follows it; cut after one of stem, a.0, a.1$"),
    ],
)
def test_wrong_cut_points(points: list[str], message: str) -> None:
    with pytest.raises(SettingError, match=message):
        check_points(points, NAMES)


def test_right_cut_points() -> None:
    assert check_points(["stem", "a.1"], NAMES) == ["stem", "a.1"] and check_points([], NAMES) == []


def test_units_may_be_numbers() -> None:
    assert check_points([0, "2"], ["0", "1", "2", "3"]) == ["0", "2"]
    with pytest.raises(SettingError, match="names 1.1, which reads as a number; put such a unit's name in quotes"):
        check_points([1.1], ["1.1", "1.10", "2"])


@pytest.mark.parametrize("blocks", [0, 6])
def test_impossible_numbers_of_blocks(blocks: int, network: Network) -> None:
    for strategy in (Even(**MACHINES), Balanced(**MACHINES)):
        with pytest.raises(SettingError, match=f"partition.blocks={blocks} is not possible: the model has 5 units"):
            strategy.choose(network, blocks, 16, CPU)


def of_the_user(spec: DataSpec, *units: nn.Module) -> Network:
    """A network of ``units`` between a convolution and a linear layer."""
    model = nn.Sequential(nn.Conv2d(3, 4, 3), *units, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 10))
    return Network.of(model, spec, Overlap(Greedy()), 0)


def test_units_that_work_in_place_can_be_cut_off(spec: DataSpec) -> None:
    """Their input is what the block before hands on, and its classifier works on."""
    network = of_the_user(spec, nn.Sequential(nn.ReLU(inplace=True)), nn.SiLU(inplace=True))
    chosen = Balanced(**MACHINES).choose(network, 2, 4, CPU)
    assert len(Partition.of(network, chosen, on(2)).blocks) == 2
    x = torch.randn(2, 4, 5, 5)
    for unit in list(network.units.values())[1:3]:
        before = x.clone()
        unit(x)
        assert torch.equal(x, before)


def test_a_block_with_nothing_to_train_is_refused(spec: DataSpec) -> None:
    network = Network.of(nn.Sequential(nn.Flatten(), nn.Linear(768, 10)), spec, Overlap(Greedy()), 0)
    chosen = Balanced(**MACHINES).choose(network, 2, 4, CPU)
    with pytest.raises(SettingError, match="the block that ends with 0 has nothing to train"):
        Partition.of(network, chosen, on(1))
