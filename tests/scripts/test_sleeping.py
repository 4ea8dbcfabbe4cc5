"""Blocks that sleep take the time they are told, whatever the batch and the schedule."""

import sys
import time
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))

from sleep_benchmark import bubble_bound  # noqa: E402
from sleeping import Glance, Sleeper, cut_points, sleeping  # noqa: E402


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The sleeps that were asked for, none of which is done."""
    seconds: list[float] = []
    monkeypatch.setattr(time, "sleep", seconds.append)
    return seconds


@pytest.mark.parametrize("wants_gradient", [True, False])
@pytest.mark.parametrize("images", [8, 4])
def test_time_goes_with_the_share_of_the_batch(images: int, wants_gradient: bool, slept: list[float]) -> None:
    y = Sleeper(0.04, 0.08, 8, 4)(torch.zeros(images, 4, requires_grad=wants_gradient))
    assert sum(slept) == pytest.approx(0.04 * images / 8)
    slept.clear()
    y.sum().backward()
    assert sum(slept) == pytest.approx(0.08 * images / 8)


def test_half_of_the_backward_is_for_inputs(slept: list[float]) -> None:
    unit, x = Sleeper(0.0, 0.08, 8, 4), torch.zeros(8, 4, requires_grad=True)
    torch.autograd.grad(unit(x).sum(), [x])
    assert sum(slept) == pytest.approx(0.04)


@pytest.mark.parametrize(
    ("parts", "points"), [(1, ["block0.0"]), (2, ["block0.0", "block0.1", "block1.0"])], ids=["one part", "two parts"]
)
def test_a_sleeping_model_is_cut_where_its_parts_end(parts: int, points: list[str], slept: list[float]) -> None:
    model = sleeping([1.0, 2.0], [1.0, 4.0], parts, 8, 256, 3)
    assert cut_points(2, parts) == points
    scores = model(torch.zeros(8, 3, 2, 2))
    assert scores.shape == (8, 3)
    scores.sum().backward()
    assert len(slept) == 2 * parts + 4 * parts - 1  # no gradient of the images
    assert sum(slept) == pytest.approx(8e-3)


def test_the_head_learns_from_the_first_features() -> None:
    head, x = Glance(3), torch.arange(18.0).reshape(2, 9).requires_grad_()
    head(x).sum().backward()
    assert torch.equal(head.weight.grad, x.detach()[:, :8].sum(0).expand(3, -1))
    assert torch.equal(x.grad, torch.zeros(2, 9))


def test_bubbles_by_hand() -> None:
    assert bubble_bound("gpipe", 4, 3, 10, 20) == 30 * (4 + 3 - 1) / 3
    assert bubble_bound("interleaved_1f1b", 4, 3, 10, 20) == 30 + 3 * 15 / 3
    assert bubble_bound("zbv_zero_bubble", 4, 8, 10, 20) == 30
