"""Local learning: ``PPLL``, one block or a few a rank, pipelined; and ``Sequential``, all blocks in one process.

Both run the same blocks through the same loop; they differ in where the blocks are placed.
"""

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from trainer.block import Block
from trainer.blocks import edge_layouts, make_block
from trainer.data.source import ImageSource
from trainer.ending import EndByHeaders, Ending
from trainer.engines.base import Job, StepOptions
from trainer.engines.loop import Lane, run
from trainer.errors import SettingError, at_least
from trainer.graphed import GraphedBlock
from trainer.local_losses.following import Follower
from trainer.partition.partition import Partition, place
from trainer.precision import DTYPES
from trainer.rank import Rank
from trainer.reporting.measure import Measure
from trainer.transport.channels import Channels
from trainer.transport.connect import open_edges
from trainer.transport.edges import Source
from trainer.transport.weights import Exchange, Publisher, Subscriber
from trainer.update import Update


class LocalLearning:
    """What both have: one model over all ranks, every block trained by a loss of its own."""

    end_to_end = False
    queue_depth = 0

    def replicas(self, world_size: int) -> int:
        """All ranks share one model."""
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
        return train_blocks(job, own_blocks(job), self.queue_depth, EndByHeaders(job.plan, job.stop, job.rank.rank))


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


def own_blocks(job: Job, kind: type[Block] | None = None) -> list[Block]:
    """The blocks that the partition places on this rank, ready to learn; the options say of which ``kind`` they are,
    unless the engine needs one of its own."""
    kind = kind or (GraphedBlock if job.options.cuda_graphs else Block)
    owners, blocks = _owners(job), []
    channels = None if job.network.local_loss.refresh is None else Channels(job.rank, owners)
    for index, owner in enumerate(owners):
        if owner == job.rank.rank:
            block = new_block(job, index, kind)
            exchanges = [] if channels is None else _exchanges(block, job, channels)
            block.train_with(new_update(job, block.parameters()), exchanges)
            job.start.fill(block)
            if job.options.skip_bad_steps:
                block.skip_bad_steps()
            blocks.append(block)
    return blocks


def new_block(job: Job, index: int, kind: type[Block] = Block) -> Block:
    """Block number ``index``, compiled where that is asked for."""
    cuts, precision = job.partition.cut_points, DTYPES[job.options.precision]
    block = make_block(job.network, cuts, index, job.plan.batch_size, job.rank.device, precision, kind)
    block.replica = job.rank.replica
    if job.options.compile:
        block.compile()
    return block


def new_update(job: Job, parameters: Mapping[str, nn.Parameter]) -> Update:
    """What updates ``parameters``, which go by their global names."""
    plan = job.plan
    return Update(
        parameters, job.make_optimizer, job.schedule, plan.epochs, plan.steps_per_epoch, job.options.update
    )


def train_blocks(job: Job, blocks: Sequence[Block], queue_depth: int, ending: Ending) -> dict[str, Tensor]:
    """Train this rank's ``blocks``; their state."""
    rank, plan = job.rank, job.plan
    layouts = edge_layouts(job.network, job.partition.cut_points, plan.batch_size, DTYPES[job.options.precision])
    edges = open_edges(rank, _owners(job), layouts, image_source(job), plan, job.clock, queue_depth)
    lanes = [Lane(block, source, sink) for block, (source, sink) in zip(blocks, edges, strict=True)]
    measure = Measure(blocks, job.clock, job.reporter, job.log_every, plan.done)
    run(lanes, plan, measure, ending, job.keeper(blocks))
    for block in blocks:
        block.close()
    return {name: value for block in blocks for name, value in block.result().items()}


def _owners(job: Job) -> list[int]:
    """The rank of each block of this replica."""
    return [job.rank.first + block.rank for block in job.partition.blocks]


def _exchanges(block: Block, job: Job, channels: Channels) -> list[Exchange]:
    """The weights that a block exchanges with its neighbours where the local loss follows the next block's first unit:
    it publishes its own first unit for the block before it, and follows that of the block after it."""
    refresh = job.network.local_loss.refresh
    assert refresh is not None
    exchanges: list[Exchange] = []
    first, *_ = block.units
    if block.index > 0:
        unit = block.units[first]
        exchanges.append(Publisher(channels.across(block.index - 1, first, unit.state_dict()), first, unit, refresh))
    if isinstance(block.classifier, Follower):
        followed, state = job.partition.blocks[block.index + 1].units[0], block.classifier.next.state_dict()
        # Changes nothing, but loads what it runs on a GPU, which could wait in vain once NCCL receives.
        block.classifier.follow(state)
        channel = channels.across(block.index, followed, state)
        exchanges.append(Subscriber(channel, followed, block.classifier.follow, refresh, job.clock, job.rank.timeout))
    return exchanges


def image_source(job: Job) -> Source | None:
    """The source of the first block, on the ranks that have the images."""
    if job.images is None:
        return None
    network, device = job.network, job.rank.device
    return ImageSource(job.images, network.spec, job.augment, job.plan, network.seed, device, job.mix, job.clock)
