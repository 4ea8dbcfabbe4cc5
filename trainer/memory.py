"""What each rank will need of memory, found before it needs it."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from trainer.blocks import edge_layouts
from trainer.engines.base import StepOptions
from trainer.meta import META, Shapes, on_meta, without_values
from trainer.network import Network
from trainer.optimizers.trial import try_out
from trainer.partition.cost import blank_packet, count
from trainer.partition.partition import Partition
from trainer.precision import DTYPES
from trainer.reporting.tables import mebibytes, table
from trainer.transport.connect import RECEIVE_SLOTS
from trainer.units import named_parameters
from trainer.update import MakeOptimizer


def memory_table(
    network: Network,
    partition: Partition,
    batch_size: int,
    options: StepOptions,
    make_optimizer: MakeOptimizer,
    queue_depth: int,
) -> list[str]:
    """For each rank: its weights with gradients and optimizer state, and with the copies that options ask for; the
    activations that it keeps for the backward of ``batch_size`` images (in fp32, an upper bound for bf16); the slots
    for packets; and what it sends for one step."""
    owners = [block.rank for block in partition.blocks]
    layouts = edge_layouts(network, partition.cut_points, batch_size, DTYPES[options.precision])
    copies = 2 + _state_copies(make_optimizer) + (options.update.average is not None)
    if options.skip_bad_steps:
        copies = 2 * copies - 1  # of all but the gradients
    kept = _kept_bytes(network, partition.cut_points, batch_size)
    frozen = _frozen(network, partition.cut_points)
    rows = [["rank", "weights and optimizer", "activations", "packet slots", "sends a step"]]
    for rank in range(owners[-1] + 1):
        own = [block for block, owner in enumerate(owners) if owner == rank]
        parameters = sum(
            partition.blocks[block].parameters + partition.blocks[block].classifier_parameters for block in own
        )
        constant = sum(frozen[block] for block in own)
        leaving = layouts[own[-1]].nbytes if own[-1] < len(layouts) else 0
        coming = layouts[own[0] - 1].nbytes if own[0] > 0 else 0
        # The blocks of a rank work one after the other, so only the largest one's activations count, unless each
        # block's graphs have memory of their own.
        sizes = (
            4 * (copies * (parameters - constant) + constant),
            (sum if options.cuda_graphs else max)(kept[block] for block in own),
            queue_depth * leaving + RECEIVE_SLOTS * coming,
            leaving,
        )
        rows.append([str(rank), *map(mebibytes, sizes)])
    return table(rows)


def _state_copies(make_optimizer: MakeOptimizer) -> float:
    """How much state an optimizer keeps for a parameter, in parameters."""
    parameter = nn.Parameter(torch.zeros(4096))
    kept = try_out(make_optimizer, parameter).state[parameter]
    state = [value for value in kept.values() if isinstance(value, Tensor)]
    return sum(tensor.numel() for tensor in state if tensor.dim()) / parameter.numel()


def _frozen(network: Network, cuts: Sequence[str]) -> list[int]:
    """How many parameters of each block are not trained, such as copies of the next block's first unit: they have no
    gradients and no optimizer state."""
    frozen = []
    for units in network.split(cuts):
        modules = {**units, "classifier": network.classifier(list(units)[-1], cuts)}
        parameters = named_parameters(modules).values()
        frozen.append(sum(parameter.numel() for parameter in parameters if not parameter.requires_grad))
    return frozen


def _kept_bytes(network: Network, cuts: Sequence[str], batch_size: int) -> list[int]:
    """The bytes of activations that each block keeps between its forward and its backward."""
    packet, kept = blank_packet(network, batch_size, META), []
    for units in network.split(cuts):
        body = on_meta(nn.Sequential(*units.values()))
        classifier = network.classifier(list(units)[-1], cuts).to(META)
        with without_values("dry_run=true can't tell its memory"):
            work = count(
                nn.ModuleList([body, classifier]),
                lambda: classifier.compute_loss(body(packet["x"]), packet).loss,  # noqa: B023
            )
        kept.append(work.kept_bytes)
        with torch.no_grad(), Shapes():
            packet = replace(packet, fields={**packet.fields, "x": body(packet["x"])})
    return kept
