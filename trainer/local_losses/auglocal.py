"""Augmented local learning (Ma et al., arXiv 2402.17318): the head of a block is made of copies of later layers."""

import math
from dataclasses import dataclass
from itertools import takewhile

from torch import nn

from trainer.errors import SettingError, at_least, check_share
from trainer.local_losses.base import HeadClassifier, LaterUnit, LocalClassifier, LocalLoss, Site
from trainer.local_losses.copies import fresh_copy
from trainer.local_losses.pooling import PoolMap, Windows
from trainer.models.heads import linear_head


@dataclass(frozen=True)
class Layer:
    """One layer of the model after the cut: a unit with a weight matrix, and the units without one that follow it,
    such as an activation or a pooling."""

    units: tuple[LaterUnit, ...]

    @property
    def in_shape(self) -> tuple[int, ...]:
        """Shape of one sample of its input."""
        return self.units[0].in_shape

    @property
    def out_shape(self) -> tuple[int, ...]:
        """Shape of one sample of its output."""
        return self.units[-1].out_shape

    def fresh(self) -> nn.Module:
        """A copy with initial weights of its own."""
        return nn.Sequential(*(fresh_copy(unit.module) for unit in self.units))


def later_layers(site: Site) -> list[Layer]:
    """The layers after a cut, up to where features become another kind (the head, which makes vectors of maps)."""
    kind = len(site.features)
    groups: list[list[LaterUnit]] = []
    for unit in takewhile(lambda unit: len(unit.out_shape) == kind, site.later[:-1]):
        if any(parameter.dim() > 1 for parameter in unit.module.parameters()):
            groups.append([])
        if groups:
            groups[-1].append(unit)
    return [Layer(tuple(group)) for group in groups]


def uniform_picks(layers: int, depth: int) -> list[int]:
    """``depth`` of ``layers`` later layers at equal distances, by number from 0; the last is always one of them. Halves
    go up; in the paper's code they go to the layer whose number in the whole model is even."""
    if depth >= layers:
        return list(range(layers))
    return [math.floor(layers / depth * i + 0.5) - 1 for i in range(1, depth + 1)]


def pyramidal_depth(depth: int, taper: float, position: float) -> int:
    """The depth of the head at ``position`` between the first cut, 0.0, and the last, 1.0: it falls linearly from
    ``depth`` by the share ``taper`` of the way to 1."""
    fallen = taper * position
    return max(1, round(depth * (1 - fallen) + fallen))


def adapter(features: tuple[int, ...], takes: tuple[int, ...]) -> nn.Module:
    """From features of one shape to those of another shape of the same kind: pooling and a linear map of the width.
    Raises ``SettingError`` for features that are no maps, tokens or vectors."""
    match features, takes:
        case (channels, height, across), (width, high, wide):
            return nn.Sequential(
                PoolMap((height, across), (high, wide)),
                nn.Conv2d(channels, width, 1, bias=False),
                nn.BatchNorm2d(width),
            )
        case (count, channels), (tokens, width):
            return nn.Sequential(Windows(count, tokens), nn.Linear(channels, width))
        case (channels,), (width,):
            return nn.Linear(channels, width)
    raise SettingError(
        f"AugLocal can't adapt features of shape {features} to a later layer that takes {takes}; cut elsewhere"
    )


def copied_layers(site: Site, depth: int) -> tuple[list[nn.Module], tuple[int, ...]]:
    """Fresh copies of ``depth`` later layers at equal distances, and the shape of their output.

    A picked layer gives the width and resolution that it has in the model. Where what comes is not what it takes,
    because layers between have been left out, the layer by which the model itself gets from here to there is copied in
    its place, such as the first block of a stage; where the model has none, an adapter of our own stands in front.
    """
    layers = later_layers(site)
    modules: list[nn.Module] = []
    shape = site.features
    for index in uniform_picks(len(layers), depth):
        picked = layers[index]
        if picked.in_shape != shape:
            shapes = (shape, picked.out_shape)
            picked = next((layer for layer in layers if (layer.in_shape, layer.out_shape) == shapes), picked)
        fits = picked.in_shape == shape
        modules.append(picked.fresh() if fits else nn.Sequential(adapter(shape, picked.in_shape), picked.fresh()))
        shape = picked.out_shape
    return modules, shape


def classifier_after(features: tuple[int, ...], num_classes: int, depth: int) -> nn.Module:
    """The linear classifier after so many copied layers; shallow heads of maps have a batch norm in it."""
    match features:
        case (channels, _, _) if depth <= 1:
            return nn.Sequential(
                nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.BatchNorm1d(channels), nn.Linear(channels, num_classes)
            )
    return linear_head(features, num_classes)


class AugLocal(LocalLoss):
    """Cross-entropy of a head of copied layers, shallower towards the end."""

    def __init__(self, depth: int = 2, taper: float = 0.5) -> None:
        """The head has ``depth`` copied layers at the first cut and ``depth - taper (depth - 1)`` at the last, linear
        in between and rounded; ``taper`` is from 0 to 1."""
        at_least(1, {"local_loss.depth": depth})
        check_share("local_loss.taper", taper)
        self._depth, self._taper = depth, taper

    def classifier(self, site: Site) -> LocalClassifier:
        """A head for maps, tokens or vectors; only a linear one where no layer follows the cut."""
        modules, shape = copied_layers(site, pyramidal_depth(self._depth, self._taper, site.depth))
        return HeadClassifier(nn.Sequential(*modules, classifier_after(shape, site.num_classes, len(modules))))
