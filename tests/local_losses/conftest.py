"""What the tests of local losses share: small sites and packets, and a check that a loss can be learned."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from trainer.local_losses.base import LaterUnit, LocalClassifier, LocalLoss, Site
from trainer.packet import Kind, Packet, Tag

MAPS, TOKENS, VECTORS = (6, 4, 4), (16, 6), (6,)
IMAGE = (3, 8, 8)
CLASSES = 4


def later_units(features: tuple[int, ...]) -> tuple[LaterUnit, ...]:
    """One unit of the same shape, and a head."""
    match features:
        case (channels, _, _):
            unit: nn.Module = nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1), nn.BatchNorm2d(channels))
            head: nn.Module = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, CLASSES))
        case (tokens, width):
            unit, head = nn.Linear(width, width), nn.Sequential(nn.Flatten(), nn.Linear(tokens * width, CLASSES))
        case _:
            unit, head = nn.Linear(*features, *features), nn.Linear(*features, CLASSES)
    return LaterUnit("next", unit, features, features), LaterUnit("head", head, features, (CLASSES,))


def make_site(features: tuple[int, ...], index: int = 0, cuts: int = 3, takes: tuple[int, ...] = IMAGE) -> Site:
    """Cut ``index`` of ``cuts``, before one unit of the same shape and a head."""
    return Site("cut", index, cuts, features, CLASSES, IMAGE, takes, later_units(features))


def make_packet(count: int = 8, takes: tuple[int, ...] = IMAGE, valid: int | None = None) -> Packet:
    """Random images with the labels 0, 1, 2, 3, 0 ..."""
    fields = {
        "x": torch.randn(count, *takes),
        "label": torch.arange(count) % CLASSES,
        "image": torch.randint(256, (count, *IMAGE), dtype=torch.uint8),
    }
    return Packet(Tag(Kind.TRAIN, 1, count if valid is None else valid), fields)


def losses_of_descent(classifier: LocalClassifier, packet: Packet, features: Tensor, steps: int = 25) -> list[float]:
    """The losses while both the classifier and the features themselves follow the loss downwards."""
    features = features.clone().requires_grad_()
    parameters = [p for p in classifier.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam([*parameters, features], 0.02)
    losses = []
    for _ in range(steps):
        loss = classifier.compute_loss(features, packet).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


@pytest.fixture
def check_loss() -> Callable[[LocalLoss], None]:
    """Check that a method gives logits and falls for maps, tokens and vectors, and that what lies beyond a packet's
    valid samples does not count."""

    def check(method: LocalLoss) -> None:
        for shape in (MAPS, TOKENS, VECTORS):
            torch.manual_seed(0)
            classifier, packet = method.classifier(make_site(shape, 1)), make_packet()
            features = torch.randn(8, *shape)
            assert classifier(features).shape == (8, CLASSES)
            losses = losses_of_descent(classifier, packet, features)
            assert losses[-1] < 0.9 * losses[0], (shape, losses)
            classifier.eval()
            packet.tag = Tag(Kind.TEST, 1, 5)
            result = classifier.compute_loss(features, packet)
            spoiled = Packet(packet.tag, {name: field.clone() for name, field in packet.fields.items()})
            spoiled["image"][5:], spoiled["label"][5:], spoiled["x"][5:] = 0, 0, 9.0
            spoiled_features = torch.cat((features[:5], torch.full_like(features[5:], 7.0)))
            torch.testing.assert_close(classifier.compute_loss(spoiled_features, spoiled).loss, result.loss)
            assert result.logits.shape == (5, CLASSES)

    return check


@pytest.fixture
def site() -> Callable[..., Site]:
    """See ``make_site``."""
    return make_site


@pytest.fixture
def packet() -> Callable[..., Packet]:
    """See ``make_packet``."""
    return make_packet
