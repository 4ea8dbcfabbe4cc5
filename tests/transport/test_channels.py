"""Weights on their way against the packets, between real ranks."""

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from tests.transport.conftest import OnRanks
from trainer.errors import PeerError
from trainer.rank import Rank
from trainer.transport.channels import Channels


def state(number: int, size: int) -> dict[str, Tensor]:
    """A unit's state with every kind of tensor."""
    return {
        "weight": torch.full((size, 2, 1, 1), float(number)),
        "bias": torch.full((size,), number, dtype=torch.bfloat16),
        "num_batches_tracked": torch.tensor(number),
        "header": torch.tensor([number > 1]),
    }


@pytest.mark.parametrize("size", [0, 3, 2_000_000])
def test_every_message_arrives_whole_and_in_order(size: int, on_ranks: OnRanks) -> None:
    def work(rank: Rank) -> list[bool]:
        channels = Channels(rank, [0, 1])
        channel = channels.across(0, "layer", state(0, size))
        if rank.rank == 1:
            for step in (1, 2, 3):
                channel.send(step, state(step, size))
            return []
        same = []
        for step in (1, 2, 3):
            sent, found = channel.receive()
            same += [sent == step, *(torch.equal(found[name], value) for name, value in state(step, size).items())]
        return same

    assert on_ranks(2, work) == [[True] * 15, []]


def test_neighbors_have_a_way_of_their_own_and_blocks_of_one_rank_another(on_ranks: OnRanks) -> None:
    def work(rank: Rank) -> list[float]:
        owners = [0, 1, 1, 2]
        channels = Channels(rank, owners)
        # From the last block to the first, so that nobody waits for what is sent later.
        for cut in (2, 1, 0):
            if owners[cut + 1] == rank.rank:
                channels.across(cut, "layer", state(0, 1)).send(1, state(cut, 1))
        cuts = [cut for cut in range(3) if owners[cut] == rank.rank]
        return [float(channels.across(cut, "layer", state(0, 1)).receive()[1]["bias"]) for cut in cuts]

    # Rank 1 sends to rank 0 before it receives from rank 2; rank 0 takes it at once.
    assert on_ranks(3, work) == [[0.0], [1.0, 2.0], []]


def test_a_rank_that_has_gone_is_named(on_ranks: OnRanks) -> None:
    def work(rank: Rank) -> list[str]:
        channel = Channels(rank, [0, 1]).across(0, "layer2.0", state(0, 1))
        if rank.rank == 1:
            channel.send(1, state(1, 1))
            dist.destroy_process_group()
            return []
        channel.receive()
        with pytest.raises(PeerError) as error:
            channel.receive()
        return [str(error.value)]

    ((sentence,), _) = on_ranks(2, work)
    assert sentence.startswith("rank 1 went away") and sentence.endswith("the weights of layer2.0")
