"""CIFAR ResNets: sizes, shapes and names."""

import pytest
import torch

from trainer.errors import SettingError
from trainer.models.resnet import resnet_cifar
from trainer.units import units_of


@pytest.mark.parametrize(("depth", "parameters"), [(32, 466_906), (110, 1_730_714)])
def test_parameters_for_ten_classes(depth: int, parameters: int) -> None:
    model = resnet_cifar(depth, 10, (3, 32, 32))
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters


def test_units_and_shapes_at_any_image_size_and_class_count() -> None:
    model = resnet_cifar(32, 7, (1, 20, 24))
    units = units_of(model)
    stages = [f"layer{stage}.{index}" for stage in (1, 2, 3) for index in range(5)]
    assert list(units) == ["stem", *stages, "head"]
    x, shapes = torch.randn(2, 1, 20, 24), []
    for unit in units.values():
        x = unit(x)
        shapes.append(tuple(x.shape[1:]))
    assert shapes[0] == (16, 20, 24) and shapes[6] == (32, 10, 12) and shapes[11] == (64, 5, 6) and shapes[-1] == (7,)


def test_convolutions_start_with_the_published_deviation() -> None:
    torch.manual_seed(0)
    weight = units_of(resnet_cifar(32, 10, (3, 32, 32)))["layer3.4"].second.conv.weight
    assert weight.std().item() == pytest.approx((2 / (9 * 64)) ** 0.5, rel=0.02)


@pytest.mark.parametrize("depth", [2, 33, 0])
def test_an_impossible_depth_is_refused(depth: int) -> None:
    with pytest.raises(SettingError, match=f"model.depth={depth} is no CIFAR ResNet; the depth is 6 n"):
        resnet_cifar(depth, 10, (3, 32, 32))
