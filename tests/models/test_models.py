"""The models that come with the project: shapes, sizes, and their mistakes."""

import copy

import pytest
import torch

from trainer.errors import SettingError
from trainer.models.resnet_imagenet import resnet_imagenet
from trainer.models.vgg import vgg
from trainer.models.vit import vit
from trainer.models.wide_resnet import wide_resnet
from trainer.network import feature_shapes
from trainer.seeds import seed_device
from trainer.units import units_of

SMALL = (3, 32, 32)


def parameters(model):
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("depth, units", [(18, 10), (34, 18), (50, 18)])
def test_imagenet_resnets_equal_torchvisions(depth, units):
    from torchvision.models import get_model

    ours, theirs = resnet_imagenet(depth, 1000, (3, 64, 64)), get_model(f"resnet{depth}", weights=None)
    assert parameters(ours) == parameters(theirs)
    assert [v.shape for v in ours.state_dict().values()] == [v.shape for v in theirs.state_dict().values()]
    ours.load_state_dict(dict(zip(ours.state_dict(), theirs.state_dict().values(), strict=True)))
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(ours.eval()(x), theirs.eval()(x))
    names = list(units_of(ours))
    assert names[0] == "stem" and names[1] == "layer1.0" and names[-1] == "head" and len(names) == units


def test_wide_resnet_has_the_published_size_and_shapes():
    with torch.device("meta"):
        model = wide_resnet(28, 10, 10, SMALL)
    assert parameters(model) == 36_479_194  # 36.5M in the paper's table 4
    shapes = feature_shapes(units_of(model), SMALL)
    assert shapes["layer1.3"] == (160, 32, 32) and shapes["layer3.3"] == (640, 8, 8) and shapes["head"] == (10,)


def test_vgg11_has_the_published_features():
    from torchvision.models import get_model

    with torch.device("meta"):
        model, theirs = vgg(11, 10, SMALL), get_model("vgg11_bn", weights=None)
    assert parameters(model) == parameters(theirs.features) + 512 * 10 + 10
    assert feature_shapes(units_of(model), SMALL)["layer5.1"] == (512, 1, 1)


@pytest.mark.parametrize(
    "width, heads, size, patch, tokens", [(192, 3, 32, 4, 64), (384, 6, 96, 8, 144), (768, 12, 224, 16, 196)]
)
def test_vit_sizes(width, heads, size, patch, tokens):
    with torch.device("meta"):
        model = vit(patch, 12, width, heads, 10, (3, size, size))
    shapes = feature_shapes(units_of(model), (3, size, size))
    assert shapes["stem"] == (tokens, width) and len(shapes) == 14
    layer = 12 * width**2 + 13 * width  # norms 4w, qkv 3w^2+3w, out w^2+w, perceptron 8w^2+5w
    embedding = 3 * patch**2 * width + width + tokens * width
    assert parameters(model) == 12 * layer + embedding + 2 * width + 10 * width + 10


def test_stochastic_depth_leaves_out_whole_samples():
    torch.manual_seed(0)
    _, last = vit(8, 2, 24, 3, 10, SMALL, stochastic_depth=0.25).encoder
    out = last.drop_path(torch.ones(4000, 3, 2))
    assert out.unique().tolist() == pytest.approx([0.0, 4 / 3])
    assert torch.equal(out.amax((1, 2)), out.amin((1, 2)))  # one draw a sample
    assert torch.equal(last.eval().drop_path(out), out)


def test_vit_rates_rise_with_depth_and_draw_by_the_seed():
    model = vit(8, 3, 24, 3, 10, SMALL, dropout=0.1, stochastic_depth=0.4)
    assert [getattr(layer.drop_path, "p", 0.0) for layer in model.encoder] == [0.0, 0.2, 0.4]
    x, outputs = torch.randn(8, 3, 32, 32), []
    for seed in (1, 1, 2):
        seed_device(torch.device("cpu"), seed)
        outputs.append(copy.deepcopy(model)(x))
    assert torch.equal(outputs[0], outputs[1]) and not torch.equal(outputs[0], outputs[2])


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: resnet_imagenet(20, 10, SMALL), "model.depth=20"),
        (lambda: wide_resnet(27, 10, 10, SMALL), "model.depth=27"),
        (lambda: wide_resnet(10, 0, 10, SMALL), "model.widen=0"),
        (lambda: wide_resnet(10, 1, 10, SMALL, dropout=1.0), "model.dropout=1.0"),
        (lambda: vgg(12, 10, SMALL), "model.depth=12"),
        (lambda: vgg(11, 10, (3, 28, 28)), "dataset.image_size=32"),
        (lambda: vit(5, 2, 24, 3, 10, SMALL), "model.patch=5 does not divide the image of 32x32 pixels"),
        (lambda: vit(4, 2, 25, 3, 10, SMALL), "model.heads=3 does not divide model.width=25"),
        (lambda: vit(4, 2, 24, 3, 10, SMALL, stochastic_depth=-0.1), "model.stochastic_depth=-0.1"),
    ],
)
def test_mistakes_are_named(make, message):
    with pytest.raises(SettingError, match=message):
        make()
