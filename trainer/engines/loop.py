"""The loop of local learning: every block of a rank in turn, one step each."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

from trainer.block import Output
from trainer.checkpoint.keeper import Keeper
from trainer.ending import Ending
from trainer.packet import Kind, Packet
from trainer.plan import Phase, Plan
from trainer.reporting.measure import Measure
from trainer.transport.edges import Sink, Source


class Trainable(Protocol):
    """What a lane trains and tests: a block, or something that behaves like one."""

    def train(self) -> None:
        """Prepare for training steps."""
        ...

    def eval(self) -> None:
        """Prepare for tests."""
        ...

    def forward(self, packet: Packet) -> Output:
        """The first half of a training step or of a test batch: what is handed on."""
        ...

    def learn(self, output: Output) -> None:
        """The second half of a training step."""
        ...

    def test(self, output: Output) -> None:
        """The second half of a test batch."""
        ...

    def check_losses(self) -> None:
        """At the end, look at the losses that have not been looked at, and at the weights."""
        ...


@dataclass(frozen=True)
class Lane:
    """A block with the way its packets come in and its output goes out."""

    block: Trainable
    source: Source
    sink: Sink


def train(lane: Lane, plan: Plan, phase: Phase) -> Iterator[int]:
    """Training steps of one block; gives the number of each step that is done."""
    block, sink = lane.block, lane.sink
    block.train()
    for packet in lane.source.packets(plan.tags(phase)):
        output = block.forward(packet)
        sink.put(output)  # leaves before the backward
        block.learn(output)  # local loss, backward, optimizer, schedule
        yield packet.tag.step


@torch.no_grad()
def test(lane: Lane, plan: Plan, phase: Phase) -> Iterator[int]:
    """Test batches of one block; gives the number of each batch that is done."""
    block, sink = lane.block, lane.sink
    block.eval()
    for packet in lane.source.packets(plan.tags(phase)):
        output = block.forward(packet)
        sink.put(output)
        block.test(output)
        yield packet.tag.step


def run(lanes: Sequence[Lane], plan: Plan, measure: Measure, ending: Ending, keeper: Keeper) -> None:
    """Do what the plan says with this rank's blocks."""
    step = plan.done
    for phase in plan.phases():
        if phase.kind is Kind.TRAIN:
            measure.begin_training(step)
            for step, *_ in zip(*(train(lane, plan, phase) for lane in lanes), strict=False):
                measure.step(step, phase.epoch)
                ending.trained(step)
                keeper.trained(step)
            measure.end_training(step)
        else:
            for batch, *_ in zip(*(test(lane, plan, phase) for lane in lanes), strict=False):
                ending.tested(step, batch)
            measure.end_test()
        if phase.kind is Kind.TEST or not plan.tests_after(step):
            measure.end_epoch(step, phase.epoch)
    for lane in lanes:
        lane.sink.close()
        lane.block.check_losses()
    keeper.close()
