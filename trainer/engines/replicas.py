"""Whole copies of the model on every rank: ``Backprop``, the training that everybody knows, and ``DDPLocal``, what data
parallelism makes of local learning.

Every rank is shown its share of each batch, and the gradients are averaged by torch's DistributedDataParallel while the
backward goes on. Batch norm sees each rank's share alone, and rank 0's running statistics are the ones that are kept:
torch's own defaults but for the buffers, which are not copied between the ranks in the course of the training.
"""

import warnings
from collections.abc import Sequence
from typing import cast

import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from trainer.block import Block, Output
from trainer.engines.base import Job
from trainer.engines.local_learning import own_blocks, train_blocks
from trainer.errors import SettingError
from trainer.packet import Packet
from trainer.partition.partition import Partition
from trainer.rank import Rank
from trainer.transport.remote import lost_group


class ReplicatedBlock(Block):
    """A block of which every rank has a copy, and whose gradients are averaged over the copies."""

    _averaging: DistributedDataParallel | None = None

    def average_over(self, group: dist.ProcessGroup) -> None:
        """Average the gradients over the ranks of ``group`` from now on; all of them call this."""
        with warnings.catch_warnings():
            # torch 2.15 has another name for the argument, which older ones do not know.
            warnings.simplefilter("ignore", FutureWarning)
            self._averaging = DistributedDataParallel(_Modules(self), process_group=group, broadcast_buffers=False)

    def forward(self, packet: Packet) -> Output:
        """Run the units on ``packet["x"]``, ``(N, ...)``, this rank's share of the batch."""
        if self._averaging is None:
            return super().forward(packet)
        output: Output = self._averaging(packet)
        return output

    def learn(self, output: Output) -> None:
        """Local loss, backward with averaging, optimizer step, schedule. Raises ``PeerError`` where a rank is lost."""
        with lost_group(f"train step {output.tag.step}"):
            super().learn(output)


class _Modules(nn.Module):
    """A block as the one module that DistributedDataParallel takes."""

    def __init__(self, block: ReplicatedBlock) -> None:
        super().__init__()
        self.parts = nn.ModuleList(block.modules())
        self._forward = super(ReplicatedBlock, block).forward

    def forward(self, packet: Packet) -> Output:
        """The block's own forward."""
        return self._forward(packet)


class DDPLocal:
    """Local learning with all blocks on every rank and gradients averaged."""

    end_to_end = False
    queue_depth = 0

    def replicas(self, world_size: int) -> int:
        """One a rank."""
        return world_size

    def blocks(self, world_size: int) -> int:
        """Four."""
        return 4

    def place(self, seconds: Sequence[float], ranks: int) -> list[int]:
        """All on the one rank that has the copy."""
        return [0] * len(seconds)

    def keeps(self, world_size: int) -> bool:
        """Only in one process: copies would have to agree on what to keep and where to end."""
        return world_size == 1

    def describe(self, rank: Rank, partition: Partition) -> str:
        """How many copies."""
        return f"local learning of {len(partition.blocks)} blocks, {_copies(rank)}"

    def train(self, job: Job) -> dict[str, Tensor]:
        """Train all blocks of this rank's copy."""
        return train_copy(job)


class Backprop:
    """End-to-end training by backpropagation: one block, which ends with the model's own head."""

    end_to_end = True
    queue_depth = 0

    def replicas(self, world_size: int) -> int:
        """One a rank."""
        return world_size

    def blocks(self, world_size: int) -> int:
        """The whole model."""
        return 1

    def place(self, seconds: Sequence[float], ranks: int) -> list[int]:
        """On the one rank that has the copy. Raises ``SettingError`` for more than one block."""
        if len(seconds) > 1:
            raise SettingError(
                f"engine=backprop trains the model uncut, but partition asks for {len(seconds)} blocks; leave out "
                f"partition.points and partition.blocks"
            )
        return [0] * len(seconds)

    def keeps(self, world_size: int) -> bool:
        """Only in one process: copies would have to agree on what to keep and where to end."""
        return world_size == 1

    def describe(self, rank: Rank, partition: Partition) -> str:
        """How many copies."""
        return f"backpropagation end to end, {_copies(rank)}"

    def train(self, job: Job) -> dict[str, Tensor]:
        """Train this rank's copy."""
        return train_copy(job)


def train_copy(job: Job) -> dict[str, Tensor]:
    """Train this rank's copy of the model; its state, on the first rank."""
    rank = job.rank
    blocks = own_blocks(job, ReplicatedBlock)
    if rank.world_size > 1:
        backend = "nccl" if rank.device.type == "cuda" and not rank.staged else "gloo"
        group = cast(dist.ProcessGroup, dist.new_group(timeout=rank.timeout, backend=backend))
        for block in blocks:
            assert isinstance(block, ReplicatedBlock)
            block.average_over(group)
    state = train_blocks(job, blocks, 0)
    return state if rank.rank == 0 else {}


def _copies(rank: Rank) -> str:
    if rank.world_size == 1:
        return "one process"
    return f"{rank.world_size} ranks with a copy each, gradients averaged by DistributedDataParallel"
