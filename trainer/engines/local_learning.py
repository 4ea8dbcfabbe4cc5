"""Local learning: ``PPLL``, one block or a few a rank, pipelined; and ``Sequential``, all blocks in one process.

Both run the same blocks through the same loop; they differ in where the blocks are placed.
"""

from collections.abc import Sequence

from torch import Tensor

from trainer.ending import EndByHeaders
from trainer.engines.base import Job, StepOptions
from trainer.engines.parts import own_blocks, train_blocks
from trainer.errors import SettingError, at_least
from trainer.partition.partition import Partition, place
from trainer.rank import Rank


class LocalLearning:
    """What both have: one model over all ranks, every block trained by a loss of its own."""

    end_to_end = False
    queue_depth = 0

    def replicas(self, world_size: int) -> int:
        """All ranks share one model."""
        return 1

    def parts(self, world_size: int) -> int:
        """One."""
        return 1

    def sees_waits(self, world_size: int) -> bool:
        """Yes: the edges wait."""
        return True

    def place(self, seconds: Sequence[float], ranks: int) -> list[int]:
        """Neighboring blocks together."""
        return place(seconds, ranks)

    def check(self, rank: Rank, options: StepOptions) -> None:
        """Everything goes."""

    def train(self, job: Job) -> dict[str, Tensor]:
        """Train this rank's blocks."""
        ending = EndByHeaders(job.plan, job.stop, job.rank.rank, job.rank.world_size)
        return train_blocks(job, own_blocks(job), self.queue_depth, ending)


class PPLL(LocalLearning):
    """Pipeline parallelism with local learning (Guo et al., arXiv 2411.12780)."""

    def __init__(self, queue_depth: int = 2) -> None:
        """``queue_depth`` is the number of packets that may wait to be taken by the next rank."""
        at_least(1, {"engine.queue_depth": queue_depth})
        self.queue_depth = queue_depth

    def blocks(self, world_size: int) -> int:
        """One a rank."""
        return world_size

    def describe(self, rank: Rank, partition: Partition) -> str:
        """How many ranks, and what carries their packets."""
        if rank.world_size == 1:
            return "ppll with one rank, which owns every block; torchrun --nproc_per_node=4 -m trainer.main starts four"
        if rank.staged:
            return (
                f"ppll, {rank.world_size} ranks that share GPUs: NCCL refuses that, so packets go through host memory"
            )
        return f"ppll, {rank.world_size} ranks, packets by {'NCCL' if rank.backend == 'nccl' else 'gloo'}"


class Sequential(LocalLearning):
    """Local learning in one process: the same result, without the pipeline."""

    def blocks(self, world_size: int) -> int:
        """Four."""
        if world_size > 1:
            raise SettingError(
                f"engine=sequential is one process, but torchrun started {world_size}; start it with python -m "
                f"trainer.main"
            )
        return 4

    def describe(self, rank: Rank, partition: Partition) -> str:
        """One process."""
        return f"sequential, one process with {len(partition.blocks)} blocks"
