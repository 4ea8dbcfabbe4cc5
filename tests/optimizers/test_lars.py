"""LARS against its formula, worked out by hand."""

import pytest
import torch
from torch import nn

from trainer.errors import SettingError
from trainer.optimizers.lars import LARS


def test_two_steps_by_hand():
    weight = nn.Parameter(torch.tensor([[3.0, 4.0]]))
    optimizer = LARS([weight], lr=2.0, momentum=0.5, weight_decay=0.1, trust=0.01)
    weight.grad = torch.tensor([[0.0, 2.0]])
    optimizer.step()
    # |w| = 5, |g| = 2: rate = 0.01 * 5 / (2 + 0.5) = 0.02; g + 0.1 w = (0.3, 2.4); v = 2 * 0.02 * that
    assert torch.allclose(weight, torch.tensor([[3 - 0.012, 4 - 0.096]]))
    size = (2.988**2 + 3.904**2) ** 0.5
    rate = 0.01 * size / (2 + 0.1 * size)
    v = (0.5 * 0.012 + 2 * rate * 0.2988, 0.5 * 0.096 + 2 * rate * (2 + 0.3904))
    optimizer.step()
    assert torch.allclose(weight, torch.tensor([[2.988 - v[0], 3.904 - v[1]]]))


def test_vectors_are_updated_by_plain_sgd_without_decay():
    bias = nn.Parameter(torch.tensor([3.0]))
    optimizer = LARS([bias], lr=0.5, momentum=0.9, weight_decay=0.1)
    bias.grad = torch.tensor([2.0])
    optimizer.step()
    assert bias.item() == 2.0


def test_weights_of_zero_move_at_the_base_rate():
    weight = nn.Parameter(torch.zeros(1, 2))
    weight.grad = torch.ones(1, 2)
    LARS([weight], lr=0.5).step()
    assert torch.equal(weight, torch.full((1, 2), -0.5))


@pytest.mark.parametrize("name, value", [("lr", -1), ("momentum", -0.1), ("weight_decay", -1e-4), ("trust", 0)])
def test_mistakes_are_named(name, value):
    with pytest.raises(SettingError, match=f"optimizer.{name}={value}"):
        LARS([nn.Parameter(torch.zeros(1))], **{"lr": 0.1, name: value})
