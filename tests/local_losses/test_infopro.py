"""InfoPro: the weights over the depth, the terms against hand-computed numbers, and what is refused."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from trainer.errors import SettingError
from trainer.local_losses.contrast import supervised_contrast
from trainer.local_losses.decoders import PatchDecoder, decoder, patch_grid
from trainer.local_losses.infopro import InfoPro, InfoProClassifier


@pytest.mark.parametrize("options", [{}, {"contrast": True}, {"reconstruct": "input"}])
def test_it_learns_maps_tokens_and_vectors(check_loss, options):
    check_loss(InfoPro([6, 1], [0, 2], **options))


def test_only_the_image_travels_and_only_where_it_is_asked_for():
    assert InfoPro([6, 1], [0, 2]).fields == ("image",)
    assert InfoPro([6, 1], [0, 2], reconstruct="input").fields == ()


def test_weights_are_linear_from_the_first_cut_to_the_last(site):
    method = InfoPro([6, 1], [0, 2])
    assert [method.weights(site((4, 4, 4), k, 3).depth) for k in range(3)] == [(6, 0), (3.5, 1), (1, 2)]
    assert method.weights(site((4, 4, 4), 0, 1).depth) == (3.5, 1)


@pytest.mark.parametrize("ends", [([5, 0], [0, 2]), ([0.3, 7], [0.1, 0]), ([5, 0.1], [0.5, 0])])
@pytest.mark.parametrize("cuts", [1, 2, 3, 15, 54])
def test_no_weight_is_negative_and_no_block_is_without_a_loss(site, ends, cuts):
    for index in range(cuts):
        weights = InfoPro(*ends).weights(site((4, 4, 4), index, cuts).depth)
        assert min(weights) >= 0 and sum(weights) > 0


def plain(classifier: InfoProClassifier) -> InfoProClassifier:
    """The classifier with a decoder that gives zeros and a last layer that gives 0, 1, 2, 3."""
    for layer in (classifier.last, classifier.decoder[0] if isinstance(classifier.decoder, nn.Sequential) else None):
        if layer is not None:
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
    classifier.last.bias.data = torch.arange(4.0)
    return classifier


def test_loss_is_the_weighted_sum_of_pixel_and_label_entropy(site, packet):
    classifier = plain(InfoPro([6, 1], [1, 2]).classifier(site((6,), 1)))
    given = packet(4)
    result = classifier.compute_loss(torch.randn(4, 6), given)
    # A logit of 0 says 1/2 for every pixel, whose entropy is log 2 whatever the pixel; weights are halfway.
    log_sum = math.log(sum(math.exp(k) for k in range(4)))
    label_entropy = sum(log_sum - k for k in range(4)) / 4
    assert result.loss.item() == pytest.approx(3.5 * math.log(2) + 1.5 * label_entropy, rel=1e-5)
    terms = {name: term.item() for name, term in result.terms.items()}
    assert terms == pytest.approx({"reconstruction": math.log(2), "label": label_entropy}, rel=1e-5)


def test_pixels_count_on_a_scale_from_0_to_1(site, packet):
    classifier = InfoPro([1, 1], [0, 0]).classifier(site((6,)))
    plain(classifier)
    classifier.decoder[0].bias.data.fill_(20.0)  # as good as sure of white
    given = packet(4)
    given["image"].fill_(255)
    given["x"].fill_(-3.0)
    label = F.cross_entropy(torch.arange(4.0).expand(4, 4), given["label"]).item()
    assert classifier.compute_loss(torch.randn(4, 6), given).loss.item() == pytest.approx(label, abs=1e-5)
    given["image"].fill_(0)
    assert classifier.compute_loss(torch.randn(4, 6), given).loss.item() == pytest.approx(label + 20, abs=1e-4)


def test_input_is_reconstructed_by_squared_error(site, packet):
    classifier = plain(InfoPro([2, 2], [0, 0], reconstruct="input").classifier(site((6,), 1, takes=(5,))))
    given = packet(4, takes=(5,))
    given["x"].fill_(3.0)
    label = F.cross_entropy(torch.arange(4.0).expand(4, 4), given["label"]).item()
    assert classifier.compute_loss(torch.randn(4, 6), given).loss.item() == pytest.approx(2 * 9.0 + label, rel=1e-6)


@pytest.mark.parametrize("contrast", [False, True])
def test_at_label_weight_0_the_early_exit_learns_without_training_the_block(site, packet, contrast):
    features = torch.randn(8, 6, 4, 4, requires_grad=True)
    classifier = InfoPro([1, 1], [0, 2], contrast=contrast).classifier(site((6, 4, 4), 0))
    given = packet()
    classifier.compute_loss(features, given).loss.backward()
    assert classifier.last.weight.grad.abs().sum() > 0
    with_label = features.grad.clone()
    features.grad = None
    classifier._reconstruction(features, given).backward()
    assert torch.equal(with_label, features.grad)


def test_contrast_does_not_train_the_block_by_the_early_exit(site, packet):
    features = torch.randn(8, 6, 4, 4, requires_grad=True)
    classifier = InfoPro([0, 1], [1, 1], contrast=True).classifier(site((6, 4, 4), 0))
    nn.init.zeros_(classifier.embed.weight)
    classifier.compute_loss(features, packet()).loss.backward()
    assert classifier.last.weight.grad.abs().sum() > 0
    assert features.grad.abs().sum() == 0


def test_supervised_contrast_by_hand():
    # Two of class 0 at right angles and one of class 1 opposite the first: similarities 0, -1, 0 at temperature 1.
    embedding = torch.tensor([[2.0, 0.0], [0.0, 3.0], [-1.0, 0.0]])
    target = torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0]])
    first = -(0 - math.log(math.exp(0) + math.exp(-1)))
    second = -(0 - math.log(math.exp(0) + math.exp(0)))
    loss = supervised_contrast(embedding, target, temperature=1.0)
    assert loss.item() == pytest.approx((first + second) / 2, rel=1e-6)


def test_supervised_contrast_against_a_loop():
    torch.manual_seed(1)
    embedding, label = torch.randn(9, 5), torch.tensor([0, 1, 0, 2, 1, 0, 3, 2, 2])
    unit = embedding / embedding.norm(dim=1, keepdim=True)
    parts = []
    for i in range(9):
        others = [j for j in range(9) if j != i]
        same = [j for j in others if label[j] == label[i]]
        total = sum(math.exp(unit[i] @ unit[j] / 0.07) for j in others)
        if same:
            parts.append(-sum(math.log(math.exp(unit[i] @ unit[j] / 0.07) / total) for j in same) / len(same))
    expected = sum(parts) / len(parts)
    assert supervised_contrast(embedding, F.one_hot(label, 4).float()).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("count", [1, 2])
def test_contrast_of_samples_that_are_all_alone_is_0_with_a_finite_gradient(count):
    embedding = torch.randn(count, 3, requires_grad=True)
    loss = supervised_contrast(embedding, torch.eye(2)[:count])
    loss.backward()
    assert loss.item() == 0 and embedding.grad.isfinite().all()


def test_patches_go_where_they_came_from():
    torch.manual_seed(0)
    model = PatchDecoder((4 + 1, 12), (3, 4, 4))  # a class token and four patches of 2x2
    model.norm = nn.Identity()
    nn.init.eye_(model.pixels.weight)
    nn.init.zeros_(model.pixels.bias)
    image = torch.randn(2, 3, 4, 4)
    patches = F.unfold(image, 2, stride=2).transpose(1, 2)
    tokens = torch.cat((torch.randn(2, 1, 12), patches), 1)
    assert torch.equal(model(tokens), image)


def test_patch_grid():
    assert patch_grid(64, 32, 32) == (4, 8, 8)
    assert patch_grid(197, 224, 224) == (16, 14, 14)
    assert patch_grid(32, 32, 64) == (8, 4, 8)
    with pytest.raises(SettingError, match="50 tokens.*32x32 pixels; cut elsewhere, or let it"):
        patch_grid(50, 32, 32)


@pytest.mark.parametrize(
    "features, target",
    [((6, 4, 4), (3, 9, 8)), ((16, 6), (3, 8, 8)), ((16, 6), (16, 5)), ((6,), (3, 8, 8)), ((6,), (5,))],
)
def test_decoders_give_the_shape_of_their_target(features, target):
    assert decoder(features, target)(torch.randn(2, *features)).shape == (2, *target)


def test_convolutions_begin_as_those_of_the_published_resnets(site):
    classifier = InfoPro([1, 1], [1, 1]).classifier(site((64, 8, 8)))
    for convolution in (*classifier.decoder.layers, *classifier.trunk):
        if isinstance(convolution, nn.Conv2d):
            wanted = math.sqrt(2 / (9 * convolution.out_channels))
            assert convolution.weight.std().item() == pytest.approx(wanted, rel=0.1)
    assert InfoPro([1, 1], [1, 1], contrast=True).classifier(site((64, 8, 8))).embed.out_features == 128
    assert [layer.out_channels for layer in classifier.decoder.layers if isinstance(layer, nn.Conv2d)] == [12, 3]


def test_corners_stay_corners_when_maps_are_resized():
    decoder_of_maps = decoder((1, 2, 2), (1, 3, 3))
    decoder_of_maps.layers = nn.Identity()
    resized = decoder_of_maps(torch.tensor([[[[0.0, 2.0], [4.0, 6.0]]]]))
    assert resized[0, 0].tolist() == [[0.0, 1.0, 2.0], [2.0, 3.0, 4.0], [4.0, 5.0, 6.0]]


def test_head_is_the_published_one_for_resnet32(site):
    from trainer.local_losses.base import LaterUnit, Site

    sizes = []
    for channels, size in ((16, 32), (32, 16), (64, 8)):
        later = (LaterUnit("layer3.4", nn.Identity(), (64, 8, 8), (64, 8, 8)),)
        place = Site("cut", 1, 3, (channels, size, size), 10, (3, 32, 32), (3, 32, 32), later)
        classifier = InfoPro([1, 1], [1, 1]).classifier(place)
        head = [*classifier.trunk.parameters(), *classifier.last.parameters()]
        sizes.append(sum(p.numel() for p in head))
    assert sizes == [10_186, 28_170, 46_602]  # 10.2k, 28.2k, 46.6k in the paper's code


@pytest.mark.parametrize(
    "arguments, message",
    [
        (([6, -1], [0, 2]), r"local_loss.reconstruction=\[6, -1\] must be two weights of at least 0"),
        (([6, 1], [2]), r"local_loss.label=\[2\] must be two weights"),
        (([5, 0], [0.5, 0]), "leave the last block without a loss"),
        (([0, 1], [0, 1]), "leave the first block without a loss"),
        (([6, 1], [0, 2], "pixels"), "local_loss.reconstruct=pixels is unknown; it is image or input"),
        (([6, 1], [0, 2], "image", False, 0), "local_loss.hidden=0 must be at least 1"),
    ],
)
def test_wrong_settings(arguments, message):
    with pytest.raises(SettingError, match=message):
        InfoPro(*arguments)
