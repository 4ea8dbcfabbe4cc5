"""Mixed images, soft labels, and the augmentations that are options of every dataset."""

import pytest
import torch
import torch.nn.functional as F

from trainer.assemble import augmentations, data_spec, label_mixes, load_images
from trainer.data.augment import RandAugment, RandomErasing
from trainer.data.mix import CutMix, Either, LabelSmoothing, MixUp, mixes
from trainer.data.source import ImageSource, data_fields
from trainer.errors import SettingError
from trainer.packet import Kind
from trainer.plan import Plan
from trainer.seeds import generator

CLASSES = 4


def batch(n=8, size=12):
    """Image i has the one value 10 i everywhere, and the label i modulo 4."""
    images = (10 * torch.arange(n, dtype=torch.uint8)).view(-1, 1, 1, 1).expand(-1, 3, size, size).contiguous()
    return images, F.one_hot(torch.arange(n) % CLASSES, CLASSES).float()


def test_mixup_mixes_images_and_labels_by_one_weight():
    images, labels = batch()
    mixed, soft = MixUp(1.0)(images, labels, generator(0, "it"))
    draw = generator(0, "it")
    a, b = torch._standard_gamma(torch.full((2,), 1.0, dtype=torch.float64), generator=draw).tolist()
    share, other = a / (a + b), torch.randperm(8, generator=draw)
    assert torch.allclose(soft, share * labels + (1 - share) * labels[other], atol=1e-6)
    expected = (share * images + (1 - share) * images[other]).round()
    assert torch.allclose(mixed.float(), expected, atol=1) and mixed.dtype == torch.uint8


def test_cutmix_labels_follow_the_pasted_area():
    images, labels = batch()
    for seed in range(20):
        mixed, soft = CutMix(1.0)(images, labels, generator(seed, "it"))
        own = (mixed == images).float().mean((1, 2, 3))
        share = (soft * labels).sum(1)
        # Where the other image has another label, the share of the own label is the share of own pixels.
        differs = share < 1
        assert torch.allclose(share[differs], own[differs], atol=1e-6)
        assert torch.allclose(soft.sum(1), torch.ones(8), atol=1e-6)


def test_beta_weights_have_the_right_spread():
    images, labels = torch.zeros(2, 1, 1, 1, dtype=torch.uint8), torch.eye(2)
    shares = []
    for seed in range(400):
        _, soft = MixUp(0.5)(images, labels, generator(seed, "it"))
        if soft[0, 1] > 0:
            shares.append(soft[0, 0].item())
    # Beta(0.5, 0.5): mean 1/2, variance 1/8.
    found = torch.tensor(shares)
    assert found.mean().item() == pytest.approx(0.5, abs=0.06) and found.var().item() == pytest.approx(0.125, abs=0.03)


def test_label_smoothing_is_torchs():
    logits, label = torch.randn(8, CLASSES), torch.arange(8) % CLASSES
    images, labels = batch()
    _, soft = LabelSmoothing(0.1)(images, labels, generator(0, "it"))
    expected = F.cross_entropy(logits, label, label_smoothing=0.1)
    assert torch.allclose(F.cross_entropy(logits, soft), expected)


def test_both_mixes_take_turns():
    both = mixes(0.2, 1.0, 0.1)
    assert [type(mix) for mix in both] == [Either, LabelSmoothing] and mixes(0.0, 0.0, 0.0) == []


def test_erasing_leaves_a_rectangle_of_noise_in_some_images():
    images = torch.zeros(200, 3, 16, 16, dtype=torch.uint8)
    erased = RandomErasing(0.25)(images, generator(0, "it"))
    changed = erased.amax(1) > 0
    touched = changed.flatten(1).any(1)
    assert touched.float().mean().item() == pytest.approx(0.25, abs=0.1)
    share = changed[touched].float().mean((1, 2))
    assert share.max() <= 0.5 and share.min() > 0
    assert not images.any()


def test_randaugment_depends_on_the_draw_alone():
    images = torch.randint(0, 256, (6, 3, 16, 16), dtype=torch.uint8, generator=generator(0, "images"))
    distort = RandAugment(2)
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = distort(images, generator(0, "it"))
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    assert torch.equal(distort(images, generator(0, "it")), first)
    assert not torch.equal(distort(images, generator(1, "it")), first)
    assert first.shape == images.shape and first.dtype == torch.uint8


def test_randaugment_refuses_channels_that_it_can_not_distort():
    with pytest.raises(SettingError, match="distorts images with 1 or 3 channels, and these have 4"):
        RandAugment(2)(torch.zeros(2, 4, 8, 8, dtype=torch.uint8), generator(0))


def test_soft_labels_are_a_field_of_the_packets(configured):
    settings = ("dataset.mixup=0.2", "dataset.cutmix=1", "dataset.label_smoothing=0.1", "dataset.random_erasing=0.5")
    dataset = configured("dataset=synthetic", "dataset.train_size=16", "dataset.test_size=8", *settings)["dataset"]
    images = load_images(dataset)
    spec = data_spec(dataset, images)
    assert spec.soft_labels and data_fields(spec, 4)["label"].shape == (4, 10)
    plan = Plan(16, 8, 4, epochs=1)
    source = ImageSource(images, spec, augmentations(dataset), plan, 0, torch.device("cpu"), label_mixes(dataset))
    for packet in source.packets(plan.all_tags()):
        label = packet["label"]
        assert label.shape == (4, 10) and label.dtype == torch.float32
        assert torch.allclose(label.sum(1), torch.ones(4))
        assert (label.amax(1) == 1).all() == (packet.tag.kind is Kind.TEST)  # a test's labels are certain


def test_validation_images_take_the_place_of_the_test_images(configured):
    sizes = ("dataset=synthetic", "dataset.train_size=20", "dataset.test_size=4")
    whole = load_images(configured(*sizes)["dataset"])
    held = load_images(configured(*sizes, "dataset.validation=6")["dataset"])
    again = load_images(configured(*sizes, "dataset.validation=6", "seed=5")["dataset"])
    assert held.size(Kind.TRAIN) == 14 and held.size(Kind.TEST) == 6
    assert torch.equal(held.test.images, again.test.images)
    both = torch.cat((held.train.images, held.test.images)).flatten(1).tolist()
    assert sorted(both) == sorted(whole.train.images.flatten(1).tolist())


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: MixUp(-0.2), "dataset.mixup=-0.2"),
        (lambda: CutMix(-1), "dataset.cutmix=-1"),
        (lambda: LabelSmoothing(1.0), "dataset.label_smoothing=1.0"),
        (lambda: RandomErasing(1.5), "probability=1.5 of RandomErasing"),
        (lambda: RandAugment(0), "operations=0"),
    ],
)
def test_mistakes_are_named(make, message):
    with pytest.raises(SettingError, match=message):
        make()


@pytest.mark.parametrize("count", [-1, 20, 21])
def test_a_validation_split_must_leave_something(configured, count):
    config = configured("dataset=synthetic", "dataset.train_size=20", f"dataset.validation={count}")
    with pytest.raises(SettingError, match=f"dataset.validation={count} must lie between 0 and 20"):
        load_images(config["dataset"])
