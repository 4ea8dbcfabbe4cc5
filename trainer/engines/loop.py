"""The loop of local learning: every block of a rank in turn, one step each."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from trainer.checkpoint.keeper import Keeper
from trainer.ending import Ending
from trainer.learner import Learner
from trainer.packet import Kind
from trainer.plan import Phase, Plan
from trainer.reporting.measure import Measure
from trainer.transport.edges import Sink, Source


@dataclass(frozen=True)
class Lane:
    """A learner with the way its packets come in and its output goes out."""

    learner: Learner
    source: Source
    sink: Sink


def train(lane: Lane, plan: Plan, phase: Phase) -> Iterator[int]:
    """Training steps of one learner; gives the number of each step that is done."""
    learner, sink = lane.learner, lane.sink
    learner.train()
    for packet in lane.source.packets(plan.tags(phase)):
        output = learner.forward(packet)
        sink.put(output)  # leaves before the backward
        learner.learn(output)  # local loss, backward, optimizer, schedule
        yield packet.tag.step


@torch.no_grad()
def test(lane: Lane, plan: Plan, phase: Phase) -> Iterator[int]:
    """Test batches of one learner; gives the number of each batch that is done."""
    learner, sink = lane.learner, lane.sink
    learner.eval()
    for packet in lane.source.packets(plan.tags(phase)):
        output = learner.forward(packet)
        sink.put(output)
        learner.test(output)
        yield packet.tag.step


def run(lanes: Sequence[Lane], plan: Plan, measure: Measure, ending: Ending, keeper: Keeper) -> None:
    """Do what the plan says with this rank's learners."""
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
        lane.learner.check_losses()
    keeper.close()
