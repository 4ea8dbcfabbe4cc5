"""Greedy and DGL: heads for every kind of features, and the cross-entropy by hand."""

import math

import pytest
import torch
from torch import nn

from trainer.errors import SettingError
from trainer.local_losses.base import ModelOutput, Site, correct
from trainer.local_losses.dgl import DGL
from trainer.local_losses.greedy import Greedy
from trainer.local_losses.pooling import PoolMap
from trainer.packet import Kind, Packet, Tag

FEATURES = [(8, 16, 16), (8, 3, 5), (12, 8), (8,)]


def site(features: tuple[int, ...]) -> Site:
    return Site("layer1.0", 0, 3, features, 10, (3, 32, 32), (3, 32, 32), ())


@pytest.mark.parametrize("loss", [Greedy(), DGL()])
@pytest.mark.parametrize("features", FEATURES)
def test_a_head_gives_logits_and_learns(loss: Greedy | DGL, features: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    classifier = loss.classifier(site(features))
    x = torch.randn(4, *features, requires_grad=True)
    packet = Packet(Tag(Kind.TRAIN, 1, 4), {"label": torch.arange(4)})
    result = classifier.compute_loss(x, packet)
    assert result.logits.shape == (4, 10)
    result.loss.backward()
    assert x.grad is not None and all(parameter.grad is not None for parameter in classifier.parameters())


@pytest.mark.parametrize("loss", [Greedy(), DGL()])
def test_features_of_another_kind_are_refused(loss: Greedy | DGL) -> None:
    with pytest.raises(SettingError, match=r"features of shape \(2, 3, 4, 5\)"):
        loss.classifier(site((2, 3, 4, 5)))


def test_the_dgl_head_has_the_published_size() -> None:
    # Pointwise: 3 (16*16 + 2*16); perceptron: 3 (64*64 + 2*64); output: 64*10 + 10.
    assert sum(p.numel() for p in DGL().classifier(site((16, 32, 32))).parameters()) == 3 * 288 + 3 * 4224 + 650
    # Pools 32x32 to 8x8, as the authors do.
    assert DGL().classifier(site((16, 32, 32))).head[0].gives == (8, 8)


def test_cross_entropy_of_valid_samples_only() -> None:
    packet = Packet(Tag(Kind.TEST, 1, 2), {"label": torch.tensor([0, 1, 0])})
    logits = torch.tensor([[0.0, 0.0], [0.0, math.log(3.0)], [100.0, -100.0]])
    result = ModelOutput().compute_loss(logits, packet)
    assert result.loss.item() == pytest.approx((math.log(2) + math.log(4 / 3)) / 2)
    assert len(result.logits) == 2


def test_soft_labels_count_as_right_at_their_largest() -> None:
    logits = torch.tensor([[2.0, 1.0], [0.0, 1.0]])
    assert correct(logits, torch.tensor([0, 0])).tolist() == [True, False]
    assert correct(logits, torch.tensor([[0.6, 0.4], [0.4, 0.6]])).tolist() == [True, True]


def test_negative_layer_counts_are_refused() -> None:
    with pytest.raises(SettingError, match="local_loss.pointwise_layers=-1"):
        DGL(pointwise_layers=-1)


def test_heads_without_hidden_layers_are_linear() -> None:
    head = DGL(0, 0).classifier(site((8, 8, 8))).head
    assert [type(module) for module in head] == [PoolMap, PoolMap, nn.Flatten, nn.Linear]
