"""AugLocal: which layers are picked, that they are copies with weights of their own, and how shapes are adapted."""

import pytest
import torch
from torch import nn

from trainer.data.images import DataSpec
from trainer.errors import SettingError
from trainer.local_losses.auglocal import AugLocal, later_layers, pyramidal_depth, uniform_picks
from trainer.local_losses.base import LaterUnit, Site
from trainer.local_losses.copies import fresh_copy, frozen_copy, trainable_copy
from trainer.local_losses.pooling import PoolMap
from trainer.models.resnet import BasicBlock, resnet_cifar
from trainer.models.vit import vit
from trainer.network import Network
from trainer.units import build_model

SPEC = DataSpec(64, 16, 10, (3, 32, 32), (0.5,) * 3, (0.5,) * 3)
CUTS = ["layer1.2", "layer2.1", "layer3.0"]


def network(method: AugLocal, model: str = "resnet32") -> Network:
    """A model of the paper under ``method``."""
    makers = {
        "resnet32": lambda: resnet_cifar(32, 10, (3, 32, 32)),
        "vit": lambda: vit(8, 6, 24, 3, 10, (3, 32, 32)),
    }
    return Network.of(build_model(makers[model], 0), SPEC, method, 0)


def test_it_learns_maps_tokens_and_vectors(check_loss):
    check_loss(AugLocal())


@pytest.mark.parametrize(
    "cut, depth, picked",
    [(3, 2, [9, 15]), (7, 2, [11, 15]), (11, 2, [13, 15]), (3, 3, [7, 11, 15]), (7, 3, [10, 12, 15]),
     (11, 3, [12, 14, 15]), (12, 3, [13, 14, 15]), (13, 5, [14, 15]), (15, 2, [])],
)  # fmt: skip
def test_picks_are_those_of_the_paper_for_16_layers(cut, depth, picked):
    assert [cut + 1 + index for index in uniform_picks(15 - cut, depth)] == picked


def test_depth_falls_towards_the_last_cut():
    assert [pyramidal_depth(5, 0.5, p) for p in (0.0, 0.5, 1.0)] == [5, 4, 3]
    assert [pyramidal_depth(5, 0.0, p) for p in (0.0, 0.5, 1.0)] == [5, 5, 5]
    assert [pyramidal_depth(4, 1.0, p) for p in (0.0, 0.5, 1.0)] == [4, 2, 1]  # 2.5 goes to the even number


def test_resnet_heads_are_residual_blocks_that_change_width_as_the_model_does():
    net = network(AugLocal(2, 0.0))
    shapes = []
    for cut in CUTS:
        head = net.classifier(cut, CUTS).head
        blocks = [module for module in head.modules() if isinstance(module, BasicBlock)]
        shapes.append([(b.first.conv.in_channels, b.first.conv.out_channels, b.first.conv.stride[0]) for b in blocks])
        assert not any(isinstance(m, PoolMap) for m in list(head)[:-1])  # nothing had to be adapted
    assert shapes == [[(16, 32, 2), (32, 64, 2)], [(32, 64, 2), (64, 64, 1)], [(64, 64, 1), (64, 64, 1)]]


def test_a_jump_over_two_stages_is_adapted():
    head = network(AugLocal(1)).classifier("layer1.2", CUTS).head
    x = torch.randn(2, 16, 32, 32)
    (adapted, layer), last = head
    assert [tuple(some.shape[1:]) for some in (adapted(x), layer(adapted(x)), head(x))] == [(64, 8, 8)] * 2 + [(10,)]
    assert any(isinstance(module, nn.BatchNorm1d) for module in last)  # an adapter is no layer


def test_vit_heads_are_encoder_layers():
    head = network(AugLocal(3, 0.0), "vit").classifier("encoder.1", ["encoder.1"]).head
    assert [type(layer[0]).__name__ for layer in list(head)[:-1]] == ["EncoderLayer"] * 3
    assert head(torch.randn(2, 16, 24)).shape == (2, 10)


def test_a_cut_before_the_head_has_a_linear_classifier():
    head = network(AugLocal(2)).classifier("layer3.4", ["layer3.4"]).head
    assert [type(module).__name__ for module in head] == ["Sequential"]
    assert head(torch.randn(2, 64, 8, 8)).shape == (2, 10)


def test_copies_share_nothing_with_the_model():
    net = network(AugLocal(16, 0.0))
    before = {name: value.clone() for unit in net.units.values() for name, value in unit.state_dict().items()}
    head = net.classifier("layer1.2", CUTS).head
    own = {p.data_ptr() for p in head.parameters()}
    assert own.isdisjoint(p.data_ptr() for unit in net.units.values() for p in unit.parameters())
    for copied, name in zip(head, net.names[4:], strict=False):
        real = net.units[name]
        if isinstance(real, BasicBlock):
            weight, other = real.first.conv.weight, copied[0].first.conv.weight
            assert not torch.equal(weight, other)
            assert torch.equal(weight.flatten().sort().values, other.flatten().sort().values)
    after = {name: value for unit in net.units.values() for name, value in unit.state_dict().items()}
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_copies_depend_on_the_seed_and_the_cut_alone():
    def head(net: Network, cut: str) -> torch.Tensor:
        return torch.cat([p.flatten() for p in net.classifier(cut, CUTS).parameters()])

    first = head(network(AugLocal(2)), CUTS[1])
    torch.manual_seed(123)
    assert torch.equal(first, head(network(AugLocal(2)), CUTS[1]))
    other = network(AugLocal(2))
    other.seed = 1
    assert not torch.equal(first, head(other, CUTS[1]))


def test_layers_begin_with_a_weight_matrix_and_end_where_the_kind_of_features_changes():
    def unit(name: str, module: nn.Module, gives: tuple[int, ...]) -> LaterUnit:
        return LaterUnit(name, module, (4, 8, 8), gives)

    later = (
        unit("relu0", nn.ReLU(), (4, 8, 8)), unit("conv1", nn.Conv2d(4, 4, 1), (4, 8, 8)),
        unit("norm1", nn.BatchNorm2d(4), (4, 8, 8)), unit("relu1", nn.ReLU(), (4, 8, 8)),
        unit("conv2", nn.Conv2d(4, 4, 1), (4, 8, 8)), unit("pool2", nn.MaxPool2d(2), (4, 4, 4)),
        unit("flatten", nn.Flatten(), (64,)), unit("hidden", nn.Linear(64, 9), (9,)), unit("fc", nn.Linear(9, 2), (2,)),
    )  # fmt: skip
    site = Site("cut", 0, 1, (4, 8, 8), 2, (3, 8, 8), (3, 8, 8), later)
    layers = later_layers(site)
    assert [[unit.name for unit in layer.units] for layer in layers] == [
        ["conv1", "norm1", "relu1"],
        ["conv2", "pool2"],
    ]


def test_a_frozen_copy_passes_the_gradient_on_and_keeps_its_statistics():
    norm = nn.BatchNorm2d(2)
    frozen = frozen_copy(nn.Sequential(nn.Conv2d(2, 2, 1), norm)).train()
    x = torch.randn(4, 2, 3, 3, requires_grad=True)
    frozen(x).square().sum().backward()
    assert x.grad.abs().sum() > 0 and not any(p.requires_grad for p in frozen.parameters())
    assert torch.equal(frozen[1].running_mean, torch.zeros(2)) and norm.momentum == 0.1


@pytest.mark.parametrize("copied", [trainable_copy, fresh_copy, frozen_copy])
def test_a_copy_does_not_write_to_what_it_is_given(copied):
    """It is a block's output, which another block gets as well."""
    unit, x = nn.Sequential(nn.Hardswish(inplace=True)), torch.randn(4, 3)
    before = x.clone()
    assert not torch.equal(copied(unit)(x), before) and torch.equal(x, before)
    assert unit[0].inplace


def test_a_fresh_copy_keeps_constants():
    norm = fresh_copy(nn.BatchNorm2d(3))
    assert torch.equal(norm.weight, torch.ones(3)) and torch.equal(norm.bias, torch.zeros(3))


def test_a_fresh_copy_knows_nothing_of_what_a_trained_norm_has_seen():
    trained = nn.Sequential(nn.BatchNorm2d(3))
    trained(torch.randn(4, 3, 2, 2) + 5)
    (norm,) = fresh_copy(trained)
    assert norm.running_mean.tolist() == [0] * 3 and norm.running_var.tolist() == [1] * 3
    assert trained[0].running_mean.min() > 0


@pytest.mark.parametrize("arguments, message", [((0,), "depth=0 must be at least 1"), ((2, 2.0), "taper=2.0 must lie")])
def test_wrong_settings(arguments, message):
    with pytest.raises(SettingError, match=message):
        AugLocal(*arguments)


def test_features_of_no_known_kind_are_refused():
    place = Site("cut", 0, 1, (2, 3, 4, 5), 4, (3, 8, 8), (3, 8, 8), ())
    with pytest.raises(SettingError, match=r"no classifier is known for features of shape \(2, 3, 4, 5\)"):
        AugLocal().classifier(place)
