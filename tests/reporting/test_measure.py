"""Speeds and times, by a clock that a test turns."""

from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
import torch.distributed as dist

from tests.reporting.test_board import Recorder, facts
from trainer.clock import Clock
from trainer.learner import Learner
from trainer.meter import Meter
from trainer.reporting.board import Board, summarize
from trainer.reporting.measure import LEFT_OUT_STEPS, Measure
from trainer.reporting.records import Record
from trainer.reporting.reporter import Reporter
from trainer.transport.control import Control

CPU = torch.device("cpu")
COMPUTES, WAITS, READS = 2.0, 1.0, 0.5
"""Seconds of a step."""


def measured(monkeypatch: pytest.MonkeyPatch, done: int, epochs: list[int]) -> tuple[list[Record], list[Record]]:
    """The records of the logged steps, every third, and of the ``epochs`` of so many steps each, of a run that goes on
    after step ``done``. Between epochs something else takes long."""
    now = [100.0]
    monkeypatch.setattr("trainer.clock.time.perf_counter", lambda: now[0])
    control, recorder, clock = Control(dist.HashStore(), 0, 1), Recorder(), Clock(CPU)
    board, reporter = Board(control, [recorder], facts((0,))), Reporter(control)
    learner: Any = SimpleNamespace(index=0, meter=Meter(CPU), update=SimpleNamespace(learning_rate=0.1))
    measure = Measure([cast(Learner, learner)], clock, reporter, log_every=3, done=done)
    step = done
    for epoch, steps in enumerate(epochs, 1):
        measure.begin_training(step)
        for _ in range(steps):
            step += 1
            now[0] += COMPUTES
            with clock.waiting():
                now[0] += WAITS
            with clock.waiting_for_images():
                now[0] += READS
            measure.step(step, epoch)
        measure.end_training(step)
        now[0] += 1000
        measure.end_epoch(step, epoch)
    reporter.close()
    found = board.finish()
    board.close(False)
    return [record for kind, record in recorder.seen if kind == "step"], found


@pytest.mark.parametrize("done", [0, 20])
def test_speed_and_busy_time_by_hand(monkeypatch: pytest.MonkeyPatch, done: int) -> None:
    images, step_seconds = 8, COMPUTES + WAITS + READS
    steps, epochs = measured(monkeypatch, done, [12, 4])
    summary = summarize(epochs, facts((0,)), LEFT_OUT_STEPS)
    assert [record["step"] for record in steps] == [n for n in range(done + 1, done + 17) if n % 3 == 0]
    assert {record["images_per_second"] for record in steps} == {images / step_seconds}
    assert {record["blocks"][0]["busy"] for record in steps} == {round(COMPUTES / step_seconds, 4)}
    assert summary["images_per_second"] == images / step_seconds
    assert summary["pipeline_efficiency"] == COMPUTES / step_seconds
    assert summary["image_wait"] == READS / step_seconds


def test_the_first_steps_and_the_tests_do_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    _, epochs = measured(monkeypatch, 0, [12, 4])
    assert [epoch["measured_steps"] for epoch in epochs] == [12 - LEFT_OUT_STEPS, 4]
    step_seconds = COMPUTES + WAITS + READS
    assert [epoch["measured_seconds"] for epoch in epochs] == [step_seconds * (12 - LEFT_OUT_STEPS), step_seconds * 4]
