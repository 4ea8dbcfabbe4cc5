"""The order of things in a step."""

from collections.abc import Iterable, Iterator
from typing import Any, cast

import pytest
import torch

from trainer.engines import loop
from trainer.learner import Learner
from trainer.packet import Packet, Tag
from trainer.plan import Plan


class Noted:
    """Learner, source and sink at once; notes what it is asked for."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def packets(self, tags: Iterable[Tag]) -> Iterator[Packet]:
        for tag in tags:
            self.asked.append(f"packet {tag.step}")
            yield Packet(tag, {"x": torch.zeros(1)})

    def __getattr__(self, name: str) -> Any:
        return lambda *packets: self.asked.append(name) or (packets[0] if packets else None)


@pytest.mark.parametrize(("half", "second"), [("train", "learn"), ("test", "test")])
def test_a_packet_leaves_before_the_second_half_of_the_step(half: str, second: str) -> None:
    noted, plan = Noted(), Plan(2, 2, 1, epochs=1)
    phase = next(phase for phase in plan.phases() if phase.kind.name == half.upper())
    lane = loop.Lane(cast(Learner, noted), noted, cast(Any, noted))
    assert list(getattr(loop, half)(lane, plan, phase)) == [1, 2]
    steps = [f"packet {step} forward put {second}" for step in (1, 2)]
    assert " ".join(noted.asked) == " ".join(["train" if half == "train" else "eval", *steps])
