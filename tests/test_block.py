"""A block trains itself, and nothing of it reaches another block."""

import copy
import math

import pytest
import torch
from torch import nn

from tests.test_update import take_step
from trainer.block import Block
from trainer.blocks import edge_layouts, make_block
from trainer.errors import NonFiniteLossError, SettingError
from trainer.local_losses.base import HeadClassifier
from trainer.network import Network
from trainer.packet import Field, Kind, Packet, Tag
from trainer.schedules import Constant, Cosine
from trainer.update import Update

CPU, FP32 = torch.device("cpu"), torch.float32


def sgd(parameters: object) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=0.1, momentum=0.9)


def trainable(network: Network, cuts: list[str], index: int) -> Block:
    block = make_block(network, cuts, index, 4, CPU, FP32)
    block.train_with(Update(block.parameters(), sgd, Constant(), epochs=1, steps_per_epoch=10))
    return block


def packet(step: int = 1, kind: Kind = Kind.TRAIN, count: int = 4) -> Packet:
    draw = torch.Generator().manual_seed(step)
    x = torch.randn(4, 3, 16, 16, generator=draw).contiguous(memory_format=torch.channels_last)
    return Packet(Tag(kind, step, count), {"x": x, "label": torch.arange(4)})


def test_the_output_is_detached_and_the_labels_go_with_it(network: Network) -> None:
    block = trainable(network, ["layer1.0"], 0)
    output = block.forward(packet())
    assert output.features.requires_grad and not output["x"].requires_grad
    assert output["x"].shape == (4, 8, 16, 16) and output["x"].is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(output["label"], torch.arange(4)) and output.tag == packet().tag


def test_a_step_is_forward_backward_and_one_optimizer_step(network: Network) -> None:
    block = trainable(network, ["layer1.0"], 0)
    by_hand = copy.deepcopy(nn.Sequential(*block.units.values(), block.classifier))
    block.train()
    block.learn(block.forward(packet()))
    by_hand.train()
    nn.functional.cross_entropy(by_hand(packet()["x"]), torch.arange(4)).backward()
    sgd(by_hand.parameters()).step()
    pairs = zip(block.parameters().values(), by_hand.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


def test_what_is_held_after_a_step_keeps_no_graph(network: Network) -> None:
    # Gradients that belong to the graph of an ordinary step would break a CUDA graph.
    block = trainable(network, ["layer1.0"], 0)
    output = block.forward(packet())
    block.learn(output)
    assert output.features.grad_fn is None


def test_blocks_and_their_classifiers_have_global_names(network: Network) -> None:
    cuts = ["stem", "layer2.0"]
    names = [name for index in range(3) for name in make_block(network, cuts, index, 4, CPU, FP32).state()]
    assert len(names) == len(set(names))
    model = [name for name in names if not name.startswith("local_classifiers.")]
    assert model == [f"{unit}.{name}" for unit, module in network.units.items() for name in module.state_dict()]
    exits = {name.rsplit(".head", 1)[0] for name in names if name.startswith("local_classifiers.")}
    assert exits == {"local_classifiers.stem", "local_classifiers.layer2.0"}


def test_a_huge_loss_of_one_block_leaves_the_others_untouched(network: Network) -> None:
    results = []
    for rate in (0.1, 1e4):
        blocks = [trainable(network, ["layer1.0"], index) for index in range(2)]
        other = Update(blocks[1].parameters(), lambda p: torch.optim.SGD(p, rate), Constant(), 1, 10)  # noqa: B023
        blocks[1].train_with(other)
        for step in (1, 2):
            output = blocks[0].forward(packet(step))
            blocks[0].learn(output)
            blocks[1].learn(blocks[1].forward(output))
        results.append(blocks)
    first, second = ([p for p in blocks[0].parameters().values()] for blocks in results)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert not torch.equal(*(list(blocks[1].parameters().values())[0] for blocks in results))


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_names_block_step_and_rate(network: Network, value: float) -> None:
    block = trainable(network, ["layer1.0"], 0)
    output = block.forward(packet(step=7))
    output.features = output.features * value
    with pytest.raises(
        NonFiniteLossError, match=r"block 0 \(up to layer1.0\) became \w+ at step 7, at learning rate 0.1"
    ):
        block.learn(output)


def test_a_test_counts_valid_samples_and_changes_nothing(network: Network) -> None:
    block = trainable(network, ["layer1.0"], 0)
    block.eval()
    before = {name: value.clone() for name, value in block.state().items()}
    with torch.no_grad():
        output = block.forward(packet(kind=Kind.TEST, count=3))
        block.test(output)
    expected = block.classifier(output["x"])[:3]
    loss, right, seen = block.meter.take_pass().sums().values()
    assert loss / seen == pytest.approx(nn.functional.cross_entropy(expected, torch.arange(3)).item())
    assert (right, seen) == ((expected.argmax(1) == torch.arange(3)).sum().item(), 3)
    assert all(torch.equal(before[name], value) for name, value in block.state().items())


def test_a_loss_whose_terms_have_other_names_is_refused(network: Network) -> None:
    block = trainable(network, ["layer1.0"], 0)
    result = block.classifier.compute_loss(torch.randn(4, *network.features["layer1.0"]), packet())._replace(
        terms={"entropy": torch.ones(())}
    )
    with pytest.raises(SettingError, match="gives the terms entropy, but its classifier's attribute terms names none"):
        block.meter.add(result, packet()["label"])


def test_dropout_depends_on_step_and_unit_not_on_what_ran_before() -> None:
    def block() -> Block:
        units = {"a": nn.Dropout(0.5), "b": nn.Dropout(0.5)}
        return Block(0, "b", units, HeadClassifier(nn.Identity()), Field("x", (2, 64), FP32), CPU, seed=3)

    ones = Packet(Tag(Kind.TRAIN, 5, 2), {"x": torch.ones(2, 64), "label": torch.zeros(2).long()})
    first = block().forward(ones)["x"]
    torch.rand(11)
    second = block()
    second.forward(Packet(Tag(Kind.TRAIN, 4, 2), ones.fields))
    assert torch.equal(second.forward(ones)["x"], first)
    assert 0.1 < (first != 0).float().mean() < 0.4  # two dropouts with different masks


def test_dropout_differs_between_steps_and_parts_of_a_batch() -> None:
    """Also in a unit whose name is a number, as those of a plain ``nn.Sequential`` are."""
    units = {"0": nn.Dropout(0.5)}
    block = Block(0, "0", units, HeadClassifier(nn.Identity()), Field("x", (1, 64), FP32), CPU, seed=3)
    pairs = [(step, part) for step in range(1, 5) for part in range(1, 5)]
    masks = {tuple(block.run(torch.ones(1, 64), Tag(Kind.TRAIN, step, 1), part)[0].tolist()) for step, part in pairs}
    assert len(masks) == len(pairs)
    block.replica = 1  # has other images, which need not lose the same features
    assert tuple(block.run(torch.ones(1, 64), Tag(Kind.TRAIN, 1, 1), 1)[0].tolist()) not in masks
    other = Block(0, "0", units, HeadClassifier(nn.Identity()), Field("x", (1, 64), FP32), CPU, seed=4)
    assert tuple(other.run(torch.ones(1, 64), Tag(Kind.TRAIN, 1, 1), 1)[0].tolist()) not in masks


def test_what_crosses_a_cut_is_declared(network: Network) -> None:
    layouts = edge_layouts(network, ["stem", "layer2.0"], 4, torch.bfloat16)
    assert [[field.name for field in layout.fields] for layout in layouts] == [["header", "x", "label"]] * 2
    assert layouts[1].fields[1].shape == (4, 16, 8, 8) and layouts[1].fields[1].dtype == torch.bfloat16


def test_the_schedule_sets_the_rate_of_each_step() -> None:
    parameter = nn.Parameter(torch.zeros(1))
    update = Update({"p": parameter}, sgd, Cosine(), epochs=2, steps_per_epoch=2)
    rates = []
    for step in range(1, 5):
        take_step(update, (parameter * 0).sum(), step)
        rates.append(update.learning_rate)
    assert rates == pytest.approx([0.1 * 0.5 * (1 + math.cos(math.pi * done / 4)) for done in range(4)])
