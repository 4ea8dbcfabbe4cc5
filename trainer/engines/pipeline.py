"""Ordinary pipeline parallelism: one loss at the end, micro-batches forward and gradients back, by
``torch.distributed.pipelining`` and its public interface alone."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.distributed import pipelining
from torch.distributed.pipelining import PipelineStage

from trainer.blocks import activation
from trainer.data.source import data_fields
from trainer.ending import EndByHeaders
from trainer.engines.base import Job, StepOptions
from trainer.engines.loop import Lane, run
from trainer.engines.parts import image_source, new_block, new_update
from trainer.engines.stage import Pipelined, Stage, sent_like
from trainer.errors import SettingError
from trainer.packet import Field, Layout
from trainer.partition.partition import Partition
from trainer.precision import DTYPES
from trainer.rank import Rank
from trainer.reporting.measure import Measure
from trainer.transport.connect import open_edges
from trainer.transport.relay import Relay
from trainer.transport.total import total


@dataclass(frozen=True)
class Schedule:
    """A schedule of the library, and what it asks for.

    Attributes:
        kind: the library's class.
        several: whether a rank has several stages.
        in_a_v: whether the second half of the stages goes back over the ranks, so that the first rank has both ends.
        fills_stages: whether it needs at least as many micro-batches as there are stages.
        in_rounds: whether it takes micro-batches in rounds of about as many as there are ranks.
        splits_backward: whether gradients of inputs and of weights are computed apart.
    """

    kind: Any
    several: bool = False
    in_a_v: bool = False
    fills_stages: bool = False
    in_rounds: bool = False
    splits_backward: bool = False


SCHEDULES = {
    "gpipe": Schedule(pipelining.ScheduleGPipe),
    "1f1b": Schedule(pipelining.Schedule1F1B, fills_stages=True),
    "interleaved_1f1b": Schedule(pipelining.ScheduleInterleaved1F1B, several=True, in_rounds=True),
    "looped_bfs": Schedule(pipelining.ScheduleLoopedBFS, several=True),
    "interleaved_zero_bubble": Schedule(
        pipelining.ScheduleInterleavedZeroBubble, several=True, in_rounds=True, splits_backward=True
    ),
    "zbv_zero_bubble": Schedule(pipelining.ScheduleZBVZeroBubble, several=True, in_a_v=True, splits_backward=True),
    "dual_pipe_v": Schedule(
        pipelining.ScheduleDualPipeV, several=True, in_a_v=True, fills_stages=True, splits_backward=True
    ),
}
"""GPipe (arXiv 1811.06965), 1F1B and its interleaved form (2104.04473), breadth-first (2211.05953), zero bubble
(2401.10241), its V (2405.15362), DualPipe's V (2412.19437)."""

V_ON_CPUS = "2.12"
"""The first torch whose pipelining lets gloo do a V. Before, a rank with two neighboring stages sent to itself at the
start, which gloo refuses."""

STAGES_A_RANK = 2
"""Of the schedules that have several, unless the user says how many."""


class Pipeline:
    """Pipeline parallelism with backpropagation. Batch norm sees a micro-batch at a time, as in every such pipeline."""

    end_to_end = True
    queue_depth = 2

    def __init__(self, schedule: str, microbatches: int, batch_size: int) -> None:
        """``microbatches`` is how many parts a batch of ``batch_size`` images is split into."""
        if schedule not in SCHEDULES:
            raise SettingError(f"engine.schedule={schedule} is unknown; it is one of {', '.join(SCHEDULES)}")
        if microbatches < 1 or batch_size % microbatches:
            raise SettingError(
                f"engine.microbatches={microbatches} must divide the {batch_size} images of a step (batch_size / "
                f"update.accumulate): every micro-batch has the same size"
            )
        self._name, self._schedule = schedule, SCHEDULES[schedule]
        self._microbatches, self._batch_size = microbatches, batch_size

    def replicas(self, world_size: int) -> int:
        """All ranks share one model."""
        return 1

    def parts(self, world_size: int) -> int:
        """The micro-batches."""
        return self._microbatches

    def sees_waits(self, world_size: int) -> bool:
        """No: the library waits for activations and gradients."""
        return False

    def blocks(self, world_size: int) -> int:
        """As many stages a rank as the schedule needs."""
        if world_size < 2:
            raise SettingError(
                "engine=pipeline needs at least 2 ranks, but there is one; start it with torchrun --nproc_per_node=2 "
                "-m trainer.main, or choose engine=backprop"
            )
        return world_size * (STAGES_A_RANK if self._schedule.several else 1)

    def place(self, seconds: Sequence[float], ranks: int) -> list[int]:
        """Round after round over the ranks, or down and up again in a V. Raises ``SettingError`` where the schedule
        can't take so many stages on so many ranks."""
        stages, wanted = len(seconds), self.blocks(ranks)
        several = self._schedule.several and not self._schedule.in_a_v
        if stages % ranks or (stages != wanted and not several):
            number = f"a multiple of {ranks}" if several else str(wanted)
            raise SettingError(
                f"engine.schedule={self._name} gives every one of {ranks} ranks equally many stages, so "
                f"{stages} blocks must be {number}; set partition.blocks, and partition.points=null where a recipe has "
                f"points"
            )
        self._check_microbatches(stages, ranks)
        rounds = [divmod(stage, ranks) for stage in range(stages)]
        return [ranks - 1 - place if self._schedule.in_a_v and turn else place for turn, place in rounds]

    def _check_microbatches(self, stages: int, ranks: int) -> None:
        count, name = self._microbatches, f"engine.microbatches={self._microbatches}"
        if self._schedule.fills_stages and count < stages:
            raise SettingError(f"{name} is too few: engine.schedule={self._name} with {stages} stages needs {stages}")
        if self._schedule.in_rounds and count % max(1, count // ranks):
            raise SettingError(
                f"{name} can't be done in {count // ranks} equal rounds, as engine.schedule={self._name} does them on "
                f"{ranks} ranks; a multiple of {ranks} always can"
            )

    def check(self, rank: Rank, options: StepOptions) -> None:
        """Raise ``SettingError`` where ranks share a GPU, and for what the library does not do."""
        self.check_device(rank.device)
        if rank.staged:
            raise SettingError(
                "engine=pipeline needs a GPU for each rank: NCCL refuses to share one; start fewer ranks"
            )
        if options.compile and self._schedule.splits_backward:
            raise SettingError(
                f"compile=true does not go with engine.schedule={self._name}, which splits the backward; choose "
                f"compile=false or another schedule"
            )
        if options.update.accumulate > 1:
            raise SettingError(
                f"update.accumulate={options.update.accumulate} does not go with engine=pipeline; a batch passes in "
                f"engine.microbatches there"
            )
        if options.update.average is not None:
            raise SettingError(
                f"update.average={options.update.average} does not go with engine=pipeline; use update.average=null"
            )
        if options.cuda_graphs:
            raise SettingError("cuda_graphs=true does not go with engine=pipeline; use cuda_graphs=false")
        if options.skip_bad_steps:
            raise SettingError("on_nan=skip does not go with engine=pipeline; use on_nan=stop")

    def check_device(self, device: torch.device) -> None:
        """Raise ``SettingError`` where this torch can't do the schedule on ``device``."""
        # torch's version compares as a version, also with text.
        if self._schedule.in_a_v and device.type == "cpu" and torch.__version__ < V_ON_CPUS:
            raise SettingError(
                f"engine.schedule={self._name} needs torch {V_ON_CPUS} or newer on CPUs, and this is "
                f"{torch.__version__}; choose another schedule"
            )

    def describe(self, rank: Rank, partition: Partition) -> str:
        """Schedule, ranks, stages and micro-batches."""
        return (
            f"pipeline, schedule {self._name}, {rank.world_size} ranks with {len(partition.blocks)} stages, "
            f"{self._microbatches} micro-batches of {self._batch_size // self._microbatches} images"
        )

    def train(self, job: Job) -> dict[str, Tensor]:
        """Train this rank's stages."""
        rank, plan = job.rank, job.plan
        pipelined = self._stages(job)
        job.start.fill(pipelined)
        # Labels and the plan's early end go from rank to rank beside the activations: every rank knows where it is. On
        # GPUs through host memory: a receive that NCCL has posted early would keep the GPU from loading the kernels of
        # the very step that has to be done before the packet is sent.
        labels = Layout([data_fields(job.network.spec, plan.batch_size)["label"]])
        ranks = range(rank.world_size)
        by_host = replace(rank, staged=rank.device.type == "cuda")
        edges = open_edges(
            by_host, ranks, [labels] * (len(ranks) - 1), image_source(job), plan, job.clock, self.queue_depth
        )
        learners = [pipelined] if pipelined.has_loss else []
        measure = Measure(learners, job.clock, job.reporter, job.log_every, plan.done)
        ending = EndByHeaders(plan, job.stop, rank.rank, rank.world_size)
        run([Lane(pipelined, *edge) for edge in edges], plan, measure, ending, job.keeper([pipelined]))
        return pipelined.state()

    def _stages(self, job: Job) -> Pipelined:
        """This rank's stages under the schedule."""
        rank, plan, partition = job.rank, job.plan, job.partition
        group = rank.group(one_queue=False)
        own = [index for index, block in enumerate(partition.blocks) if block.rank == rank.rank]
        blocks = [new_block(job, index) for index in own]
        count = len(partition.blocks)
        modules = [Stage(block, block.index == 0, block.index == count - 1) for block in blocks]
        stages = [
            PipelineStage(module, index, count, rank.device, *self._like(job, index), group=group)
            for module, index in zip(modules, own, strict=True)
        ]
        update = new_update(job, {name: value for block in blocks for name, value in block.parameters().items()})
        update.clip_together(lambda part: total(part, group))
        owners = [block.rank for block in partition.blocks]
        handed_on = [sent_like(field, plan.batch_size) for field in self._fields(job, plan.batch_size)]
        relay = Relay(owners, handed_on, rank.rank, rank.device, group)
        pipelined = Pipelined(modules, blocks, count - 1, update, relay)
        given: Any = stages if self._schedule.several else stages[0]
        pipelined.run_by(self._schedule.kind(given, self._microbatches, loss_fn=pipelined.loss))
        return pipelined

    def _like(self, job: Job, index: int) -> tuple[Tensor, Tensor]:
        """What a micro-batch is like before and after a stage, so that the library need not find out in its first
        step."""
        size = self._batch_size // self._microbatches
        fields = self._fields(job, size)
        images = torch.empty(size, *job.network.spec.image_shape, device="meta")
        before = images.to(memory_format=torch.channels_last) if index == 0 else sent_like(fields[index - 1], size)
        return before, sent_like(fields[index], size)

    def _fields(self, job: Job, size: int) -> list[Field]:
        """What each stage hands on for ``size`` images; the last one's are the logits."""
        ends = [*job.partition.cut_points, job.network.names[-1]]
        return [activation(job.network, unit, size, DTYPES[job.options.precision]) for unit in ends]
