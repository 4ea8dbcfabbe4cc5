"""What engines make of a job: this rank's blocks, their updates, and the edges that they are trained between."""

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from trainer.block import Block
from trainer.blocks import edge_layouts, make_block
from trainer.data.source import ImageSource
from trainer.ending import Ending
from trainer.engines.base import Job
from trainer.engines.loop import Lane, run
from trainer.graphed import GraphedBlock
from trainer.local_losses.following import Follower
from trainer.precision import DTYPES
from trainer.reporting.measure import Measure
from trainer.transport.channels import Channels
from trainer.transport.connect import open_edges
from trainer.transport.edges import Source
from trainer.transport.weights import Exchange, Publisher, Subscriber
from trainer.update import Update


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
    """The weights that a block exchanges with its neighbors where the local loss follows the next block's first unit:
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
