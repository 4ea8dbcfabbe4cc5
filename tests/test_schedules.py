"""Schedules against numbers worked out by hand and against torch's own."""

import math

import pytest
import torch

from trainer.errors import SettingError
from trainer.schedules import Constant, Cosine, OneCycle, Step, warnings_of


def test_cosine_by_epoch_is_the_published_formula():
    schedule, base, total = Cosine(10, 0.01 / 0.8, by_epoch=True), 0.8, 160
    for e in range(1, total + 1):
        cosine = 0.5 * base * (1 + math.cos(math.pi * e / total))
        expected = cosine * (e - 1) / 10 + 0.01 * (11 - e) / 10 if e <= 10 else cosine
        for inside in (0.0, 0.5, 0.99):
            assert base * schedule(e - 1 + inside, total) == pytest.approx(expected, abs=1e-12), e
    assert base * schedule(0.0, total) == pytest.approx(0.01)
    assert schedule(159.5, total) == pytest.approx(0.0)


def test_cosine_by_step_falls_smoothly():
    schedule = Cosine()
    assert [schedule(e, 4) for e in (0.0, 2.0, 4.0)] == pytest.approx([1.0, 0.5, 0.0])
    assert Cosine(2, 0.1)(1.0, 8) == pytest.approx(0.5 * 0.5 * (1 + math.cos(math.pi / 8)) + 0.5 * 0.1)


def test_step():
    schedule = Step([2, 3], 0.5)
    assert [schedule(e, 4) for e in (0.0, 1.99, 2.0, 3.5)] == [1.0, 1.0, 0.5, 0.25]
    assert [Step()(e, 8) for e in (3.9, 4.0, 6.0)] == pytest.approx([1.0, 0.1, 0.01])


def test_one_cycle_is_torchs():
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], 1.0)
    theirs = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1.0, total_steps=101, pct_start=0.3, cycle_momentum=False)
    ours = OneCycle(rise=29.3 / 100)  # torch's way up ends a step early: 0.3 * 101 - 1
    for step in range(101):
        assert optimizer.param_groups[0]["lr"] == pytest.approx(ours(step, 100), abs=1e-9), step
        optimizer.step()
        if step < 100:
            theirs.step()


def test_constant():
    assert Constant()(0.3, 7) == 1.0


@pytest.mark.parametrize(
    "schedule, warnings",
    [
        (Cosine(warmup_epochs=5), ["scheduler.warmup_epochs=5 leaves nothing of epochs=5: the base rate is never met"]),
        (Step([2, 5, 7.5]), ["scheduler.milestones: 5, 7.5 lie beyond epochs=5"]),
        (Cosine(warmup_epochs=4.5), []),
        (Step([2, 4]), []),
        (Step(), []),
        (Constant(), []),
        (lambda epoch, epochs: 1.0, []),  # somebody's own
    ],
)
def test_what_a_run_is_too_short_for_is_said(schedule, warnings):
    assert warnings_of(schedule, 5) == warnings


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: Cosine(-1), "scheduler.warmup_epochs=-1"),
        (lambda: Step([3, 2]), r"scheduler.milestones=\[3, 2\]"),
        (lambda: Step([0, 2]), r"scheduler.milestones=\[0, 2\]"),
        (lambda: Step([]), r"scheduler.milestones=\[\]"),
        (lambda: Step(None, 1.0), "scheduler.factor=1.0"),
        (lambda: OneCycle(rise=1.0), "scheduler.rise=1.0"),
        (lambda: OneCycle(start=-1), "scheduler.start=-1 must lie between 0 and 1"),
        (lambda: OneCycle(end=2), "scheduler.end=2 must lie between 0 and 1"),
    ],
)
def test_mistakes_are_named(make, message):
    with pytest.raises(SettingError, match=message):
        make()
