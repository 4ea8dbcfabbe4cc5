"""What a dry run says of memory is what a real step takes."""

import pytest
import torch

from tests.conftest import Compose
from trainer.assemble import make_network
from trainer.blocks import make_block
from trainer.data.images import DataSpec
from trainer.engines.base import StepOptions
from trainer.memory import memory_table
from trainer.network import Network
from trainer.packet import Kind, Packet, Tag
from trainer.partition.partition import Partition
from trainer.partition.strategies import Balanced
from trainer.schedules import Constant
from trainer.update import Update, UpdateOptions

CPU, FP32 = torch.device("cpu"), torch.float32


def adamw(parameters: object) -> torch.optim.Optimizer:
    return torch.optim.AdamW(parameters)


def step(update: UpdateOptions, cuda_graphs: bool = False) -> StepOptions:
    return StepOptions(
        precision="fp32", compile=False, cuda_graphs=cuda_graphs, skip_bad_steps=False, update=update
    )


def test_graphs_keep_the_activations_of_every_block(network: Network) -> None:
    machine = {"gflops": 50.0, "gbytes_per_second": 10.0}
    chosen = Balanced(machine, machine).choose(network, 3, 4, CPU)
    partition = Partition.of(network, chosen, lambda seconds: [0] * len(seconds))
    plain, graphed = (
        float(memory_table(network, partition, 64, step(UpdateOptions(), graphs), adamw, 2)[1].split()[3])
        for graphs in (False, True)
    )
    assert graphed > 1.5 * plain


@pytest.mark.parametrize("local_loss", ["dgl", "overlap", "man"])
@pytest.mark.parametrize("average", [None, 0.9])
def test_weights_gradients_and_optimizer_state(
    local_loss: str, average: float | None, configured: Compose, spec: DataSpec
) -> None:
    network = make_network(configured("model.depth=8", "model.width=32", f"local_loss={local_loss}"), spec)
    machine = {"gflops": 50.0, "gbytes_per_second": 10.0}
    chosen = Balanced(machine, machine).choose(network, 3, 4, CPU)
    partition = Partition.of(network, chosen, lambda seconds: list(range(len(seconds))))
    options = UpdateOptions(average=average)
    lines = memory_table(network, partition, 4, step(options), adamw, 2)
    packet = Packet(Tag(Kind.TRAIN, 1, 4), {"x": torch.randn(4, *spec.image_shape), "label": torch.arange(4)})
    for index, line in enumerate(lines[1:]):
        block = make_block(network, partition.cut_points, index, 4, CPU, FP32)
        block.train_with(Update(block.parameters(), adamw, Constant(), 1, 1, options))
        output = block.forward(packet)
        block.learn(output)
        packet = Packet(packet.tag, {"x": output["x"], "label": packet["label"]})
        weights = {p for module in block.modules() for p in module.parameters()}
        taken = [*weights, *block.update.gradients(), *(t for t in block.update.state().values() if t.dim())]
        assert f"{sum(tensor.nbytes for tensor in taken) / 2**20:,.1f} MiB" == " ".join(line.split()[1:3])
