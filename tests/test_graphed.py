"""What a block with CUDA graphs does around them. The graphs are stood in for by ones that do their work when it is
recorded and nothing when it is replayed, so the fourth step is a true one without a GPU."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import pytest
import torch

from tests.conftest import Compose
from trainer.assemble import make_network
from trainer.block import Block
from trainer.learner import Output
from trainer.blocks import make_block
from trainer.data.images import DataSpec
from trainer.errors import SettingError
from trainer.graphed import ORDINARY_STEPS, GraphedBlock
from trainer.packet import Kind, Packet, Tag
from trainer.schedules import Constant
from trainer.update import Update, UpdateOptions

CPU = torch.device("cpu")


class Graph:
    """Nothing is left to do in a replay."""

    def replay(self) -> None:
        """Nothing."""


@pytest.fixture(autouse=True)
def stand_ins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(torch.cuda, "graph", lambda *arguments, **options: nullcontext())
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: (0, 1))
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: None)


def packet(step: int, kind: Kind = Kind.TRAIN) -> Packet:
    draw = torch.Generator().manual_seed(step)
    image = torch.randint(0, 255, (4, 3, 16, 16), dtype=torch.uint8, generator=draw)
    x = torch.randn(4, 3, 16, 16, generator=draw).contiguous(memory_format=torch.channels_last)
    return Packet(Tag(kind, step, 4), {"x": x, "label": torch.arange(4), "image": image})


def made(kind: type[Block], local_loss: str, options: UpdateOptions, configured: Compose, spec: DataSpec) -> Block:
    network = make_network(configured("model.depth=8", "model.width=8", f"local_loss={local_loss}"), spec)
    block = make_block(network, ["layer1.0"], 0, 4, CPU, torch.float32, kind)
    block.train_with(Update(block.parameters(), lambda p: torch.optim.SGD(p, 0.1, 0.9), Constant(), 1, 10, options))
    return block


def trained(block: Block, steps: int) -> Output:
    """The output of the last step; after the third one comes a test."""
    block.train()
    for step in range(1, steps + 1):
        output = block.forward(packet(step))
        block.learn(output)
        if step == ORDINARY_STEPS:
            block.eval()
            with torch.no_grad():
                block.test(block.forward(packet(1, Kind.TEST)))
            block.train()
    return output


@pytest.mark.parametrize("local_loss", ["dgl", "infopro", "overlap", "man"])
@pytest.mark.parametrize("options", [UpdateOptions(), UpdateOptions(clip_norm=0.1, average=0.9)], ids=["plain", "more"])
@pytest.mark.parametrize("skip", [False, True])
def test_the_first_recorded_step_is_what_it_would_have_been(
    local_loss: str, options: UpdateOptions, skip: bool, configured: Compose, spec: DataSpec
) -> None:
    blocks = [made(kind, local_loss, options, configured, spec) for kind in (Block, GraphedBlock)]
    if skip and not options.average:
        for block in blocks:
            block.skip_bad_steps()
    plain, graphed = (trained(block, ORDINARY_STEPS + 1) for block in blocks)
    assert torch.equal(plain["x"], graphed["x"]) and torch.equal(graphed["label"], torch.arange(4))
    states = [{**block.state(), **block.update.state()} for block in blocks]
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert torch.equal(blocks[0].meter.sums, blocks[1].meter.sums)
    for block in blocks:
        block.check_losses()


def test_later_steps_read_what_is_new_and_write_where_they_wrote(configured: Compose, spec: DataSpec) -> None:
    block = made(GraphedBlock, "infopro", UpdateOptions(), configured, spec)
    first = trained(block, ORDINARY_STEPS + 1)
    gradients = block.update.gradients()
    output = block.forward(packet(9))
    assert output["x"].data_ptr() == first["x"].data_ptr() and output.tag.step == 9
    for name in ("x", "image", "label"):
        assert torch.equal(output.incoming[name], packet(9)[name])
    block.learn(output)
    assert gradients and all(a is b for a, b in zip(gradients, block.update.gradients(), strict=True))
    kept, new = (block.differentiate(output).loss for _ in range(2))
    assert kept.data_ptr() != new.data_ptr()  # a meter keeps losses for some steps


@contextmanager
def failing(*arguments: object, **options: object) -> Iterator[None]:
    """As torch's: the end of a recording that has failed raises again."""
    try:
        yield
    finally:
        raise RuntimeError("operation failed due to a previous error during capture")


@pytest.mark.parametrize("error", [RuntimeError("can't synchronize"), torch.OutOfMemoryError("no memory left")])
def test_what_a_graph_can_not_hold_is_said(
    error: RuntimeError, configured: Compose, spec: DataSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    block = made(GraphedBlock, "dgl", UpdateOptions(), configured, spec)
    trained(block, ORDINARY_STEPS)
    monkeypatch.setattr(torch.cuda, "graph", failing)

    def fail(*arguments: object) -> None:
        raise error

    monkeypatch.setattr(block, "run", fail)
    sentence = r"cuda_graphs=true, but block 0 \(up to layer1.0\) does what a CUDA graph .* \(can't synchronize\)"
    expected, words = (SettingError, sentence) if "sync" in str(error) else (torch.OutOfMemoryError, "no memory left")
    with pytest.raises(expected, match=words):
        block.forward(packet(ORDINARY_STEPS + 1))
