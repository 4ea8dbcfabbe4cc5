"""What every local loss of conf/local_loss/ must do, whatever it is."""

import math
from collections.abc import Sequence
from itertools import islice
from typing import Any

import pytest
import torch

from trainer.assemble import data_spec, load_images, make_network
from trainer.block import Block
from trainer.blocks import edge_layouts, make_block
from trainer.data.source import ImageSource
from trainer.local_losses.base import LocalClassifier, LossOutput
from trainer.main import CONFIGS
from trainer.network import Network
from trainer.packet import Kind, Packet
from trainer.plan import Plan
from trainer.launch import Launch
from trainer.rank import Rank
from trainer.run import Run
from trainer.schedules import Constant
from trainer.update import Update

CPU, FP32 = torch.device("cpu"), torch.float32

LOSSES = sorted(path.stem for path in (CONFIGS / "local_loss").glob("*.yaml"))

MODELS = {
    "resnet": (("model.depth=8", "model.width=8"), ["stem", "layer1.0", "layer2.0"]),
    "vit": (
        ("model=vit_tiny", "model.depth=4", "model.width=12", "model.patch=4"),
        ["stem", "encoder.0", "encoder.2"],
    ),
}

TINY = (
    "dataset=synthetic", "dataset.image_size=8", "dataset.train_size=64", "dataset.test_size=4", "dataset.noise=0.3",
    "batch_size=16", "engine=sequential", "threads=1", "device=cpu", "tracker=none",
)  # fmt: skip


@pytest.fixture(params=[(loss, model) for loss in LOSSES for model in MODELS], ids="-".join)
def case(request: Any, configured: Any) -> tuple[dict[str, Any], Network, list[str]]:
    """A configuration, its network and its cuts, for every loss and a model of each kind."""
    loss, model = request.param
    overrides, cuts = MODELS[model]
    config = configured(*TINY, f"local_loss={loss}", *overrides)
    return config, make_network(config, data_spec(config["dataset"], load_images(config["dataset"]))), cuts


def make_blocks(network: Network, cuts: Sequence[str], precision: torch.dtype = FP32) -> list[Block]:
    """Every block, ready to train."""

    def adam(parameters: Any) -> torch.optim.Optimizer:
        return torch.optim.Adam(parameters, lr=0.003)

    blocks = [make_block(network, cuts, index, 16, CPU, precision) for index in range(len(cuts) + 1)]
    for block in blocks:
        block.train_with(Update(block.parameters(), adam, Constant(), 10, 4))
        block.train()
    return blocks


def learn(blocks: Sequence[Block], packet: Packet) -> None:
    """One training step of every block."""
    for block in blocks:
        packet = block.forward(packet)
        block.learn(packet)


@pytest.mark.parametrize("precision", [FP32, torch.bfloat16], ids=str)
def test_every_block_learns(case, precision):
    config, network, cuts = case
    blocks = make_blocks(network, cuts, precision)
    plan = Plan(64, 4, 16, 6)
    images = load_images(config["dataset"])
    source = ImageSource(images, network.spec, [], plan, 0, CPU)
    means = []
    for phase in [phase for phase in plan.phases() if phase.kind is Kind.TRAIN]:
        for packet in source.packets(plan.tags(phase)):
            learn(blocks, packet)
        passes = [block.meter.take_pass().sums() for block in blocks]
        means.append([sums["loss"] / sums["seen"] for sums in passes])
    first, last = means[0], means[-1]
    assert all(math.isfinite(loss) for loss in last)
    assert all(end < 0.97 * begin for begin, end in zip(first, last, strict=True)), (first, last)


def test_the_terms_of_a_loss_are_told_by_the_names_it_gives(case):
    config, network, cuts = case
    blocks = make_blocks(network, cuts)
    source = ImageSource(load_images(config["dataset"]), network.spec, [], Plan(64, 4, 16, 1), 0, CPU)
    learn(blocks, next(source.packets(Plan(64, 4, 16, 1).all_tags())))
    for block in blocks:
        sums = block.meter.take_pass().sums()
        assert set(sums) == {"loss", "right", "seen", *(f"loss_{term}" for term in block.classifier.terms)}
        assert all(math.isfinite(value) and value != 0 for name, value in sums.items() if name != "right")


def spoil(classifier: LocalClassifier) -> None:
    """Make its loss a thousand times too large."""
    whole = classifier.compute_loss

    def larger(features: torch.Tensor, packet: Packet) -> LossOutput:
        result = whole(features, packet)
        return result._replace(loss=1e3 * result.loss)

    classifier.compute_loss = larger


def test_no_block_changes_an_earlier_one(case):
    config, network, cuts = case
    states = []
    for spoiled in (None, 1):
        blocks = make_blocks(network, cuts)
        plan = Plan(64, 4, 16, 1)
        source = ImageSource(load_images(config["dataset"]), network.spec, [], plan, 0, CPU)
        if spoiled is not None:
            spoil(blocks[spoiled].classifier)
        for packet in islice(source.packets(plan.all_tags()), 2):
            learn(blocks, packet)
        states.append([block.state() for block in blocks])
    for index, (one, other) in enumerate(zip(*states, strict=True)):
        # Only what block 1 hands on is its affair, and a later block's input.
        if index == 0:
            assert all(torch.equal(one[name], other[name]) for name in one)
        elif index == 1:
            assert not all(torch.equal(one[name], other[name]) for name in one)


def test_a_balanced_partition_counts_its_classifiers_and_can_be_shown(case, capsys):
    config, _, _ = case
    run = Run(
        {**config, "partition": {**config["partition"], "blocks": 4}},
        Rank.join(Launch(environment={}), 0, "cpu", 1, 60),
    )
    costs = run.partition.costs
    assert all(0 < seconds < math.inf for seconds in costs.classifier.values())
    assert list(costs.classifier) == run.partition.cut_points
    assert all(block.classifier_parameters > 0 for block in run.partition.blocks[:-1])
    run.preview()
    shown = capsys.readouterr().out
    assert "packet slots" in shown and "sends a step" in shown


def test_initial_weights_depend_on_the_seed_and_the_cut_alone(case):
    _, network, cuts = case
    one = network.classifier(cuts[1], cuts).state_dict()
    torch.manual_seed(99)
    other = network.classifier(cuts[1], cuts).state_dict()
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("loss", ["greedy", "dgl", "predsim", "deinforeg"])  # whose head is the same at any depth
def test_initial_weights_do_not_depend_on_the_other_cuts(configured, spec, loss):
    def weights(cuts, seed=0):
        network = make_network(configured("model.depth=8", "model.width=8", f"local_loss={loss}", f"seed={seed}"), spec)
        return list(network.classifier("layer2.0", cuts).parameters())

    alone, among = weights(["layer2.0"]), weights(["stem", "layer1.0", "layer2.0"])
    assert all(map(torch.equal, alone, among))
    assert not all(map(torch.equal, alone, weights(["layer2.0"], seed=1)))


@pytest.mark.parametrize("loss", LOSSES)
def test_the_image_travels_to_every_block_with_a_local_loss_that_asks_for_it(configured, loss):
    config = configured(*TINY, f"local_loss={loss}")
    network = make_network(config, data_spec(config["dataset"], load_images(config["dataset"])))
    names = [[field.name for field in layout.fields] for layout in edge_layouts(network, ["stem", "layer1.0"], 4, FP32)]
    asked = ["image"] if loss == "infopro" else []
    assert names == [["header", "x", "label", *asked], ["header", "x", "label"]]
