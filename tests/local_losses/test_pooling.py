"""Pooling gives what torch's adaptive pooling gives."""

import pytest
import torch
from torch import nn

from trainer.local_losses.pooling import PoolMap, Windows


@pytest.mark.parametrize(
    ("takes", "gives"), [((8, 8), (2, 2)), ((7, 5), (3, 2)), ((1, 1), (2, 2)), ((4, 6), (4, 4)), ((3, 3), (1, 1))]
)
def test_maps(takes: tuple[int, int], gives: tuple[int, int]) -> None:
    x = torch.randn(2, 3, *takes).to(memory_format=torch.channels_last)
    torch.testing.assert_close(PoolMap(takes, gives)(x), nn.AdaptiveAvgPool2d(gives)(x))


@pytest.mark.parametrize(("takes", "gives"), [(65, 17), (64, 16), (5, 5), (3, 1), (1, 2)])
def test_tokens(takes: int, gives: int) -> None:
    x = torch.randn(2, takes, 3)
    torch.testing.assert_close(Windows(takes, gives)(x), nn.AdaptiveAvgPool1d(gives)(x.mT).mT)


def test_a_saved_model_has_nothing_of_it() -> None:
    assert not PoolMap((7, 5), (3, 2)).state_dict()
