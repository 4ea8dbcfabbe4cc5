"""Cutting models that were not written as sequences."""

import copy

import pytest
import torch
from torch import nn

from trainer.data.images import DataSpec
from trainer.errors import SettingError
from trainer.local_losses.greedy import Greedy
from trainer.models.cut import Slice, cut_up
from trainer.models.torchvision import torchvision_model
from trainer.network import Network, feature_shapes
from trainer.seeds import seeded
from trainer.units import named_parameters, named_state, nested, units_of

MODELS = {
    "resnet18": (64, 15),
    "efficientnet_b0": (64, 79),
    "mobilenet_v3_small": (64, 59),
    "vgg11_bn": (64, 38),
    "convnext_tiny": (64, 30),
    "vit_b_16": (224, 18),
    "googlenet": (64, 26),
    "densenet121": (64, 23),
    "shufflenet_v2_x0_5": (64, 25),
    "swin_t": (64, 29),
}


def original(name):
    from torchvision.models import get_model

    arguments = {"init_weights": False, "aux_logits": False} if name == "googlenet" else {}
    return get_model(name, weights=None, num_classes=10, **arguments)


@pytest.mark.parametrize("name", MODELS)
def test_a_cut_model_is_the_original(name):
    size, count = MODELS[name]
    theirs = original(name).eval()
    expected = {key: value.clone() for key, value in theirs.state_dict().items()}
    x = torch.randn(2, 3, size, size)
    with torch.no_grad():
        logits = theirs(x)
    model = cut_up(theirs, name)
    units = units_of(model)
    assert len(units) == count
    state = named_state(units)
    assert state.keys() == expected.keys()
    assert all(torch.equal(state[key], value) for key, value in expected.items())
    with torch.no_grad():
        assert torch.equal(model(x), logits)
        assert torch.equal(copy.deepcopy(model)(x), logits)
    assert list(feature_shapes(units, (3, size, size)).values())[-1] == (10,)


def test_units_have_the_names_of_torchvisions_modules():
    units = units_of(torchvision_model("resnet18", 10))
    assert list(units)[:6] == ["conv1", "bn1", "relu", "maxpool", "layer1.0", "layer1.1"]
    assert list(units)[-3:] == ["avgpool", "flatten", "fc"]


def test_initial_weights_are_torchvisions():
    with seeded(3, "model"):
        expected = original("mobilenet_v3_small").state_dict()
    with seeded(3, "model"):
        state = named_state(units_of(torchvision_model("mobilenet_v3_small", 10)))
    assert all(torch.equal(state[name], value) for name, value in expected.items())


def test_no_unit_writes_to_its_input():
    spec = DataSpec(8, 8, 10, (3, 32, 32), (0.5,) * 3, (0.5,) * 3)
    for unit in Network.of(torchvision_model("densenet121", 10), spec, Greedy(), 0).units.values():
        assert not getattr(unit, "inplace", False)
    network = Network.of(torchvision_model("vgg11_bn", 10).eval(), spec, Greedy(), 0)
    x = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        for name, unit in network.units.items():
            before = x.clone()
            out = unit(x)
            assert torch.equal(x, before), name
            x = out


class InPlace(nn.Module):
    """Operations that write to what a layer gave: as methods, functions and operators."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(4, 4) for _ in range(4))

    def forward(self, x):
        a, b, c, d = self.layers
        x = torch.sigmoid_(b(a(x).relu_().mul_(2)))
        x = c(x)
        x += 1
        return d(x)


def test_operations_between_units_work_out_of_place():
    """Where the names of layers in a list and of operations between them would not nest in that order, too."""
    whole = InPlace()
    units = units_of(cut_up(copy.deepcopy(whole), "it"))
    assert list(units) == ["layers_0", "mul_", "layers_1", "sigmoid_", "layers_2", "add", "layers_3"]
    assert named_parameters(units).keys() == dict(whole.named_parameters()).keys()
    x = torch.randn(2, 4)
    expected = whole(x)
    for unit in units.values():
        before, out = x.clone(), unit(x)
        assert torch.equal(x, before)
        x = out.detach().requires_grad_()
    torch.testing.assert_close(x, expected)


class Scaled(nn.Module):
    """A layer that takes a number beside the tensor."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(self, x, scale=1.0):
        return scale * self.linear(x)


class CalledByName(nn.Module):
    """Children that are called with more than what comes in."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.join = Scaled(), Scaled(), nn.Bilinear(4, 4, 3)

    def forward(self, x):
        x = self.second(self.first(x, scale=0.5), scale=3.0)
        return self.join(x, input2=x)


def test_a_child_is_called_with_all_that_it_is_given():
    whole = CalledByName()
    model, x = cut_up(copy.deepcopy(whole), "it"), torch.randn(2, 4)
    assert list(units_of(model)) == ["first", "second", "join"]
    assert torch.equal(model(x), whole(x))


class OwnParameter(nn.Module):
    """A parameter beside the children, like a class token."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 3)
        self.bias = nn.Parameter(torch.randn(4))

    def forward(self, x):
        return self.second(torch.relu(self.first(x) + self.bias))


def test_a_slice_keeps_the_names_of_its_parameters():
    whole = OwnParameter()
    units = units_of(cut_up(whole, "it"))
    assert list(units) == ["first", "relu", "second"]
    made = units["relu"]
    assert isinstance(made, Slice) and made.parameter_prefix == "" == copy.deepcopy(made).parameter_prefix
    assert set(named_parameters(units)) == {"first.weight", "first.bias", "bias", "second.weight", "second.bias"}


class Branches(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(3, 3), nn.Linear(3, 3)

    def forward(self, x):
        return self.a(x) + self.b(x)


class Decides(Branches):
    def forward(self, x):
        return self.a(x) if x.sum() > 0 else self.b(x)


class Moody(Branches):
    def forward(self, x):
        x = self.a(x)
        return self.b(x) if self.training else x


class Shared(Branches):
    def forward(self, x):
        return self.a(self.b(self.a(x)))


@pytest.mark.parametrize("kind", [Branches, Decides, Moody, Shared])
def test_what_cant_be_cut_is_refused_by_name(kind):
    with pytest.raises(SettingError, match="^model.name=it can't be cut into units"):
        cut_up(kind(), "model.name=it")


@pytest.mark.parametrize("kind", [Branches, Decides, Moody, Shared])
def test_what_cant_be_cut_inside_stays_whole(kind):
    inner = nn.Sequential()
    inner.add_module("odd", kind())
    inner.add_module("last", nn.Linear(3, 2))
    assert list(units_of(cut_up(nn.Sequential(nn.Flatten(), inner), "it"))) == ["0", "1.odd", "1.last"]


def test_a_module_without_parameters_may_be_used_twice():
    class Twice(Branches):
        def __init__(self):
            super().__init__()
            self.relu = nn.ReLU(inplace=True)

        def forward(self, x):
            return self.relu(self.b(self.relu(self.a(x))))

    assert list(units_of(cut_up(Twice(), "it"))) == ["a", "relu", "b", "relu_"]


def test_nested_is_the_inverse_of_units_of():
    model = nn.Sequential()
    model.add_module("stem", nn.Linear(2, 2))
    model.add_module("layer1", nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.Linear(2, 2), nn.ReLU())))
    units = units_of(model)
    assert list(units) == ["stem", "layer1.0", "layer1.1.0", "layer1.1.1"]
    assert nested(units).state_dict().keys() == model.state_dict().keys()
