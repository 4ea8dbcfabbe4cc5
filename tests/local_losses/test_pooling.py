"""Pooling gives what torch's adaptive pooling gives."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from trainer.local_losses.pooling import PoolMap, Windows


@pytest.mark.parametrize(
    ("takes", "gives"), [((8, 8), (2, 2)), ((7, 5), (3, 2)), ((1, 1), (2, 2)), ((4, 6), (4, 4)), ((3, 3), (1, 1))]
)
def test_maps(takes: tuple[int, int], gives: tuple[int, int]) -> None:
    assert_alike(PoolMap(takes, gives), nn.AdaptiveAvgPool2d(gives), torch.randn(2, 3, *takes))


def assert_alike(pool: nn.Module, reference: Callable[[Tensor], Tensor], x: Tensor) -> None:
    """The same averages, and the same gradient of something that weighs them differently."""
    inputs = [x.clone().to(memory_format=torch.channels_last).requires_grad_() if x.dim() == 4 else
              x.clone().requires_grad_() for _ in range(2)]  # fmt: skip
    outputs = [pool(inputs[0]), reference(inputs[1])]
    torch.testing.assert_close(*outputs)
    weights = torch.randn(outputs[0].shape)
    for output in outputs:
        (output * weights).sum().backward()
    torch.testing.assert_close(inputs[0].grad, inputs[1].grad)


def test_maps_of_another_resolution() -> None:
    x = torch.randn(2, 3, 16, 8)
    torch.testing.assert_close(PoolMap((8, 8), (2, 2))(x), nn.AdaptiveAvgPool2d(2)(x))


@pytest.mark.parametrize(("takes", "gives"), [(65, 17), (64, 16), (5, 5), (3, 1), (1, 2)])
def test_tokens(takes: int, gives: int) -> None:
    reference = nn.AdaptiveAvgPool1d(gives)
    assert_alike(Windows(takes, gives), lambda x: reference(x.mT).mT, torch.randn(2, takes, 3))


def test_the_type_stays_under_autocast() -> None:
    x = torch.randn(2, 5, 3, dtype=torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        assert Windows(5, 2)(x).dtype is torch.bfloat16


def test_a_saved_model_has_nothing_of_it() -> None:
    assert not PoolMap((7, 5), (3, 2)).state_dict()
