"""Cutting models that were not written as sequences."""

import copy
import multiprocessing
import os

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


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"name": "resnet19"}, "model.name=resnet19 is no classification model of torchvision"),
        ({"name": None}, "model.name=None is no classification model"),
        ({"name": "fcn_resnet50"}, "model.name=fcn_resnet50 is no classification model"),
        ({"name": "resnet18", "weights": "BEST"}, "model.weights=BEST is unknown for resnet18; .* IMAGENET1K_V1"),
        ({"name": "resnet18", "weights": "BEST", "fetch": False}, "model.weights=BEST is unknown for resnet18"),
        ({"name": "vit_b_16", "options": {"image_size": 28}}, "model.options do not fit torchvision's vit_b_16: Input"),
        ({"name": "resnet18", "options": {"color": 1}}, "model.options do not fit torchvision's resnet18"),
    ],
)
def test_mistakes_are_named(arguments, message):
    with pytest.raises(SettingError, match=message):
        torchvision_model(num_classes=10, **arguments)


def test_trained_weights_are_used_with_a_new_last_layer(tmp_path, monkeypatch):
    from torchvision.models import MobileNet_V3_Small_Weights, get_model

    theirs = get_model("mobilenet_v3_small", weights=None, num_classes=1000)
    monkeypatch.setattr(MobileNet_V3_Small_Weights, "get_state_dict", lambda self, *args, **kwargs: theirs.state_dict())
    ours = named_state(units_of(torchvision_model("mobilenet_v3_small", 10, weights="DEFAULT")))
    expected = theirs.state_dict()
    different = {name for name, value in ours.items() if not torch.equal(value, expected[name])}
    assert different == {"classifier.3.weight", "classifier.3.bias"}
    assert ours["classifier.3.weight"].shape == (10, 1024)
    same = named_state(units_of(torchvision_model("mobilenet_v3_small", 1000, weights="IMAGENET1K_V1")))
    assert all(torch.equal(value, expected[name]) for name, value in same.items())


@pytest.mark.parametrize("name", ["resnet18", "googlenet"])
def test_a_model_whose_weights_come_from_elsewhere_needs_no_original(name, monkeypatch):
    """It is the same model, down to what the trained weights are made for."""
    from torchvision.models import GoogLeNet_Weights, ResNet18_Weights, get_model

    theirs = get_model(name, weights=None, num_classes=1000, **({"init_weights": False} if name == "googlenet" else {}))
    for weights in (GoogLeNet_Weights, ResNet18_Weights):
        monkeypatch.setattr(weights, "get_state_dict", lambda self, *args, **kwargs: theirs.state_dict())
    trained = units_of(torchvision_model(name, 10, weights="DEFAULT"))
    for weights in (GoogLeNet_Weights, ResNet18_Weights):
        monkeypatch.delattr(weights, "get_state_dict")
    empty = units_of(torchvision_model(name, 10, weights="DEFAULT", fetch=False))
    state = named_state(trained)
    with torch.no_grad():
        for key, value in named_state(empty).items():
            value.copy_(state[key])
    x = torch.randn(1, 3, 64, 64)
    pairs = zip(trained.items(), empty.items(), strict=True)
    found = expected = x
    for (one, unit), (other, copied) in pairs:
        assert one == other
        expected, found = unit.eval()(expected), copied.eval()(found)
    assert torch.equal(found, expected)


@pytest.mark.parametrize("options, patches", [({}, 24), ({"image_size": 64}, 4)])
def test_a_vision_transformer_of_untaken_weights_takes_their_images(options, patches):
    with torch.device("meta"):
        units = units_of(torchvision_model("vit_b_16", 10, "IMAGENET1K_SWAG_E2E_V1", options, fetch=False))
    assert named_state(units)["encoder.pos_embedding"].shape == (1, patches**2 + 1, 768)


def test_of_several_processes_one_downloads(tmp_path, monkeypatch):
    from torchvision.models import get_model

    theirs = get_model("mobilenet_v3_small", weights=None, num_classes=1000).state_dict()
    log = tmp_path / "downloads"

    def download(url, file, *args, **kwargs):
        with log.open("a") as lines:
            lines.write(f"{url}\n")
        torch.save(theirs, f"{file}.part")
        os.replace(f"{file}.part", file)  # as torch does

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.setattr(torch.hub, "download_url_to_file", download)
    processes = multiprocessing.get_context("fork")
    ranks = [
        processes.Process(target=torchvision_model, args=("mobilenet_v3_small", 10, "DEFAULT"), daemon=True)
        for _ in range(3)
    ]
    for rank in ranks:
        rank.start()
    for rank in ranks:
        rank.join(60)
    assert [rank.exitcode for rank in ranks] == [0, 0, 0]
    (url,) = log.read_text().splitlines()
    assert url.startswith("https://download.pytorch.org/models/mobilenet_v3_small-")


def test_weights_that_cant_be_had_say_where_to_put_them(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    (tmp_path / "checkpoints").mkdir()

    def refuse(*args, **kwargs):
        raise OSError("no route to host")

    monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)
    with pytest.raises(SettingError, match="model.weights=IMAGENET1K_V1 of resnet18 can't .*resnet18-f37072fd.pth"):
        torchvision_model("resnet18", 10, weights="DEFAULT")
