"""Whole copies of the model on every rank: ``Backprop``, the training that everybody knows, and ``DDPLocal``, what data
parallelism makes of local learning.

Every rank is shown its share of each batch, and the gradients are averaged by torch's DistributedDataParallel while the
backward goes on. Batch norm sees each rank's share alone, and rank 0's running statistics are the ones that are tested
and kept: as with torch's own defaults, but copied to the other ranks before a test instead of before every step.
"""

from collections.abc import Sequence

import torch.distributed as dist
from torch import Tensor

from trainer.block import Block
from trainer.learner import Output
from trainer.ending import EndByHeaders, EndTogether
from trainer.engines.base import Job, StepOptions
from trainer.engines.parts import own_blocks, train_blocks
from trainer.errors import SettingError
from trainer.packet import Packet
from trainer.partition.partition import Partition
from trainer.rank import Rank
from trainer.transport.copies import Copies
from trainer.transport.lost import lost_group


class ReplicatedBlock(Block):
    """A block of which every rank has a copy, and whose gradients are averaged over the copies."""

    _copies: Copies[Output] | None = None

    def average_over(self, group: dist.ProcessGroup) -> None:
        """Average the gradients over the ranks of ``group`` from now on; all of them call this."""
        self._copies = Copies(self.modules(), super().forward, group)

    def eval(self) -> None:
        """Prepare for ``test``, with the running statistics of the first rank on all."""
        super().eval()
        if self._copies is not None:
            self._copies.share_buffers()

    def forward(self, packet: Packet) -> Output:
        """Run the units on ``packet["x"]``, ``(N, ...)``, this rank's share of the batch."""
        return super().forward(packet) if self._copies is None else self._copies.forward(packet)

    def learn(self, output: Output) -> None:
        """Local loss, backward with averaging, optimizer step, schedule. Raises ``PeerError`` where a rank is lost."""
        with lost_group(f"train step {output.tag.step}"):
            super().learn(output)


class Replicas:
    """Training with a copy of the model on every rank."""

    queue_depth = 0

    def replicas(self, world_size: int) -> int:
        """One a rank."""
        return world_size

    def parts(self, world_size: int) -> int:
        """One a copy."""
        return world_size

    def sees_waits(self, world_size: int) -> bool:
        """No, where there are others: DistributedDataParallel waits for them inside the backward."""
        return world_size == 1

    def check(self, rank: Rank, options: StepOptions) -> None:
        """Raise ``SettingError`` where copies would have to agree on which steps to skip, or average inside a graph."""
        if rank.world_size == 1:
            return
        copies = f"does not go with data parallelism on {rank.world_size} ranks"
        if options.skip_bad_steps:
            raise SettingError(f"on_nan=skip {copies}; use on_nan=stop")
        if options.cuda_graphs:
            raise SettingError(f"cuda_graphs=true {copies}; use cuda_graphs=false")

    def train(self, job: Job) -> dict[str, Tensor]:
        """Train this rank's copy; its state, on the first rank."""
        rank = job.rank
        if rank.world_size == 1:
            alone = EndByHeaders(job.plan, job.stop, rank.rank, 1)
            return train_blocks(job, own_blocks(job), self.queue_depth, alone)
        blocks = own_blocks(job, ReplicatedBlock)
        group = rank.group()
        for block in blocks:
            assert isinstance(block, ReplicatedBlock)
            block.average_over(group)
        state = train_blocks(job, blocks, self.queue_depth, EndTogether(job.plan, job.stop, rank))
        return state if rank.rank == 0 else {}


class DDPLocal(Replicas):
    """Local learning with all blocks on every rank and gradients averaged."""

    end_to_end = False

    def blocks(self, world_size: int) -> int:
        """Four."""
        return 4

    def place(self, seconds: Sequence[float], ranks: int) -> list[int]:
        """All on the one rank that has the copy."""
        return [0] * len(seconds)

    def describe(self, rank: Rank, partition: Partition) -> str:
        """How many copies."""
        return f"local learning of {len(partition.blocks)} blocks, {_copies(rank)}"


class Backprop(Replicas):
    """End-to-end training by backpropagation: one block, which ends with the model's own head."""

    end_to_end = True

    def blocks(self, world_size: int) -> int:
        """The whole model."""
        return 1

    def place(self, seconds: Sequence[float], ranks: int) -> list[int]:
        """On the one rank that has the copy. Raises ``SettingError`` for more than one block."""
        if len(seconds) > 1:
            raise SettingError(
                f"engine=backprop trains the model uncut, but partition asks for {len(seconds)} blocks; set "
                f"partition.points=null and partition.blocks=null"
            )
        return [0] * len(seconds)

    def describe(self, rank: Rank, partition: Partition) -> str:
        """How many copies."""
        return f"backpropagation end to end, {_copies(rank)}"


def _copies(rank: Rank) -> str:
    if rank.world_size == 1:
        return "one process"
    return f"{rank.world_size} ranks with a copy each, gradients averaged by DistributedDataParallel"
