"""Cutting a network into blocks: the one place where blocks and the packets between them are made."""

import copy
from collections.abc import Sequence

import torch

from trainer.block import Block
from trainer.data.source import data_fields
from trainer.network import Network
from trainer.packet import Field, Layout


def make_block(
    network: Network,
    cuts: Sequence[str],
    index: int,
    batch_size: int,
    device: torch.device,
    precision: torch.dtype,
    kind: type[Block] = Block,
) -> Block:
    """Block number ``index`` of ``network`` cut after each of ``cuts``, with modules of its own on ``device``; ``kind``
    is the class that it is an instance of."""
    units = network.split(cuts)[index]
    end = list(units)[-1]
    return kind(
        index,
        end,
        copy.deepcopy(units),
        network.classifier(end, cuts),
        activation(network, end, batch_size, precision),
        device,
        network.seed,
        precision,
    )


def edge_layouts(network: Network, cuts: Sequence[str], batch_size: int, precision: torch.dtype) -> list[Layout]:
    """The packets that cross each cut: activations, labels, and what the local losses of later blocks ask for."""
    offered = data_fields(network.spec, batch_size)
    layouts = []
    for index, cut in enumerate(cuts):
        local_losses_follow = index + 1 < len(cuts)
        wanted = network.local_loss.fields if local_losses_follow else ()
        extra = [offered[name] for name in wanted]
        layouts.append(Layout([activation(network, cut, batch_size, precision), offered["label"], *extra]))
    return layouts


def activation(network: Network, unit: str, batch_size: int, precision: torch.dtype) -> Field:
    """What a block that ends with ``unit`` hands on."""
    return Field("x", (batch_size, *network.features[unit]), precision)
