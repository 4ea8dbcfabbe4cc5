"""Models are opened up into named units whose names prefix their parameters'."""

import pytest
import torch
from torch import nn

from trainer.errors import SettingError
from trainer.models.resnet import Stem, resnet_cifar
from trainer.units import build_model, named_parameters, named_state, units_of


def test_plain_sequentials_are_opened_and_others_are_units() -> None:
    model = nn.Sequential()
    model.add_module("stem", Stem(3, 4, 3))
    model.add_module("body", nn.Sequential(nn.Linear(1, 1), nn.Sequential(nn.ReLU(), nn.Linear(1, 1))))
    assert list(units_of(model)) == ["stem", "body.0", "body.1.0", "body.1.1"]


def test_a_module_that_comes_twice_is_two_units() -> None:
    act, body = nn.ReLU(), nn.Linear(2, 2)
    model = nn.Sequential(nn.Linear(1, 2), act, body, act, nn.Sequential(body, act))
    units = units_of(model)
    assert list(units) == ["0", "1", "2", "3", "4.0", "4.1"] and units["3"] is act and units["4.0"] is body
    assert named_parameters(units).keys() == {"0.weight", "0.bias", "2.weight", "2.bias"}


def test_global_names_are_those_of_the_whole_model() -> None:
    model = resnet_cifar(8, 10, (3, 8, 8))
    units = units_of(model)
    assert named_state(units).keys() == model.state_dict().keys()
    assert named_parameters(units).keys() == dict(model.named_parameters()).keys()


def test_initial_weights_depend_on_the_seed_alone() -> None:
    def make() -> nn.Module:
        return resnet_cifar(8, 10, (3, 8, 8))

    torch.manual_seed(1)
    first = build_model(make, seed=5).state_dict()
    torch.manual_seed(2)
    second, other = build_model(make, seed=5).state_dict(), build_model(make, seed=6).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(first["stem.conv.weight"], other["stem.conv.weight"])


class Residual(nn.Sequential):
    """Calls its modules in a way of its own."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The input is added to what comes out."""
        added: torch.Tensor = x + super().forward(x)
        return added


def test_what_is_no_sequential_is_refused() -> None:
    with pytest.raises(SettingError, match="a Residual with a forward of its own, which can't be cut"):
        build_model(lambda: Residual(nn.Linear(1, 1)), 0)
    with pytest.raises(SettingError, match="the model is a Linear, which can't be cut"):
        build_model(lambda: nn.Linear(1, 1), 0)
