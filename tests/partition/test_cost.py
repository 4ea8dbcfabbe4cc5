"""Counted costs are the numbers that arithmetic gives."""

import math
import operator
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import nn

from tests.conftest import Compose
from trainer.assemble import make_network
from trainer.data.images import DataSpec
from trainer.local_losses.auglocal import AugLocal
from trainer.local_losses.base import LocalLoss
from trainer.local_losses.dgl import DGL
from trainer.local_losses.infopro import InfoPro
from trainer.network import Network
from trainer.partition.cost import Costing, Counted, Machine, Measured, count


def test_a_linear_layer_by_hand() -> None:
    layer = nn.Linear(20, 30, bias=False, device="meta")
    x = torch.empty(8, 20, device="meta", requires_grad=True)
    work = count(layer, lambda: layer(x))
    assert work.flops == 3 * 2 * 8 * 20 * 30  # forward, gradient of the input, gradient of the weight
    assert work.kept_bytes == 4 * 8 * 20  # the input, for the weight's gradient; the weight itself is no activation
    product = 4 * (8 * 20 + 20 * 30 + 8 * 30)  # each of the three products touches all three matrices
    optimizer = 5 * 4 * 20 * 30
    assert product * 3 + optimizer <= work.nbytes <= product * 3 + optimizer + 3 * 4 * 8 * 30


def test_an_input_without_gradient_saves_a_third_of_the_arithmetic() -> None:
    layer = nn.Linear(20, 30, bias=False, device="meta")
    x = torch.empty(8, 20, device="meta")
    assert count(layer, lambda: layer(x)).flops == 2 * 2 * 8 * 20 * 30


def test_seconds_of_a_machine() -> None:
    assert Machine(gflops=2, gbytes_per_second=4).seconds(2e9, 4e9) == 2.0


def test_costs_of_a_network_repeat_and_add_up(network: Network) -> None:
    machine, names = Machine(100, 10), network.names
    costs = Costing(network, 16, Counted(machine)).anywhere()
    assert costs == Costing(network, 16, Counted(machine)).anywhere()
    assert list(costs.inner) == names and list(costs.classifier) == names[:-1]
    assert all(0 < value < math.inf for value in (*costs.inner.values(), *costs.classifier.values()))
    assert all(costs.first[name] <= costs.inner[name] for name in names)
    whole = costs.block(names[:2], last=False)
    assert whole == costs.first[names[0]] + costs.inner[names[1]] + costs.classifier[names[1]]
    assert costs.block(names, last=True) == costs.first[names[0]] + sum(costs.inner[n] for n in names[1:])


@pytest.mark.parametrize(
    "local_loss, compare",
    [
        (AugLocal(depth=3, taper=1.0), [operator.gt, operator.lt]),  # the heads get shallower from cut to cut
        (InfoPro([0, 1], [1, 1]), [operator.lt, operator.eq]),  # no decoder where the reconstruction weighs nothing
        (InfoPro([1, 1], [1, 1], reconstruct="input"), [operator.eq, operator.gt]),  # of more than the image
        (DGL(), [operator.eq, operator.eq]),
    ],
    ids=["auglocal", "infopro", "infopro of the input", "dgl"],
)
def test_a_classifier_costs_what_it_does_at_its_cut(
    network: Network, local_loss: LocalLoss, compare: list[Callable[[float, float], bool]]
) -> None:
    """Which may be another than if it were alone."""
    costing = Costing(replace(network, local_loss=local_loss), 16, Counted(Machine(100, 10)))
    alone, cuts = costing.anywhere().classifier, ["stem", "layer1.0"]
    here = costing.at(cuts).classifier
    assert [holds(here[cut], alone[cut]) for cut, holds in zip(cuts, compare, strict=True)] == [True, True]


def test_memory_traffic_weighs_early_blocks_more_than_arithmetic_does(configured: Compose, spec: DataSpec) -> None:
    narrow = make_network(configured("model.depth=8", "model.width=4"), spec)
    arithmetic, memory = (Costing(narrow, 16, Counted(Machine(*limits))).at([]) for limits in ((1, 1e9), (1e9, 1)))
    early, late = "layer1.0", "layer3.0"
    assert memory.inner[early] / memory.inner[late] > 1.5 * arithmetic.inner[early] / arithmetic.inner[late]


def test_counting_leaves_the_network_alone(network: Network) -> None:
    before = {name: value.clone() for unit in network.units.values() for name, value in unit.state_dict().items()}
    for timer in (Counted(Machine(1, 1)), Measured(torch.device("cpu"), repeats=1)):
        Costing(network, 16, timer).at(["stem"])
    after = {name: value for unit in network.units.values() for name, value in unit.state_dict().items()}
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_measured_times_are_seconds(network: Network) -> None:
    costs = Costing(network, 16, Measured(torch.device("cpu"), repeats=2)).at(["stem", "layer1.0"])
    assert list(costs.inner) == network.names and list(costs.classifier) == ["stem", "layer1.0"]
    assert all(0 < value < 5 for value in (*costs.inner.values(), *costs.first.values(), *costs.classifier.values()))
