"""The order of the images and their augmentation depend on seed and step alone."""

from collections.abc import Iterable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from trainer.data.augment import HorizontalFlip, RandomCrop
from trainer.data.images import DataSpec, Images, Pick, Split
from trainer.data.mix import Mix, MixUp
from trainer.data.source import ImageSource
from trainer.errors import SettingError
from trainer.packet import Kind, Packet, Tag
from trainer.plan import Plan, Share

SPEC = DataSpec(10, 5, 2, (1, 4, 4), (0.0,), (1.0,))


def images() -> Images:
    def split(count: int, start: int) -> Split:
        values = torch.arange(start, start + count, dtype=torch.uint8)
        return Split(values.view(-1, 1, 1, 1).expand(-1, 1, 4, 4).contiguous(), values.long())

    return Images(split(10, 0), split(5, 100), 2)


def packets(plan: Plan, seed: int = 0) -> list[Packet]:
    source = ImageSource(images(), SPEC, [], plan, seed, torch.device("cpu"))
    return list(source.packets(plan.all_tags()))


def test_an_epoch_shows_each_image_once_in_a_new_order() -> None:
    plan = Plan(10, 5, 5, epochs=2)
    labels = [packet["label"].tolist() for packet in packets(plan) if packet.tag.kind is Kind.TRAIN]
    first, second = labels[0] + labels[1], labels[2] + labels[3]
    assert sorted(first) == sorted(second) == list(range(10)) and first != second


def test_a_resumed_run_sees_the_same_images() -> None:
    whole, rest = packets(Plan(10, 5, 5, epochs=2)), packets(Plan(10, 5, 5, epochs=2, done=3))
    assert rest[0].tag == Tag(Kind.TRAIN, 4, 5)
    assert torch.equal(rest[0]["x"], whole[4]["x"])


def test_another_seed_gives_another_order() -> None:
    plan = Plan(10, 5, 5, epochs=1)
    assert not torch.equal(packets(plan, 0)[0]["label"], packets(plan, 1)[0]["label"])


class Draws:
    """An augmentation, or a mix, that only notes the first number that it would draw."""

    def __init__(self) -> None:
        self.drawn: list[float] = []

    def __call__(self, *batch: Tensor | torch.Generator) -> Any:
        *tensors, generator = batch
        assert isinstance(generator, torch.Generator)
        self.drawn.append(torch.rand((), generator=generator).item())
        return tensors[0] if len(tensors) == 1 else tuple(tensors)


def drawn(plan: Plan, seed: int) -> list[list[float]]:
    """What two augmentations and two mixes draw in each training step."""
    augment, mix = [Draws(), Draws()], [Draws(), Draws()]
    source = ImageSource(images(), SPEC, augment, plan, seed, torch.device("cpu"), mix)
    list(source.packets(plan.all_tags()))
    return [draws.drawn for draws in (*augment, *mix)]


def test_augmentation_depends_on_seed_and_step_alone() -> None:
    whole = drawn(Plan(10, 5, 5, epochs=2), seed=0)
    numbers = {number for draws in (*whole, *drawn(Plan(10, 5, 5, epochs=2), seed=1)) for number in draws}
    assert len(numbers) == 2 * 4 * 4  # seeds, sorts of draws, steps
    assert drawn(Plan(10, 5, 5, epochs=2, done=3), seed=0) == [draws[3:] for draws in whole]


@pytest.mark.parametrize("mix", [[], [MixUp(1.0)]])
def test_replicas_share_what_one_copy_would_be_shown(mix: list[Mix], monkeypatch: pytest.MonkeyPatch) -> None:
    read = []
    batches = Images.batches

    def counting(self: Images, picks: Iterable[Pick]) -> Iterator[tuple[Tensor, Tensor]]:
        kept = list(picks)
        read.append(len(kept[0].places))
        return batches(self, iter(kept))

    monkeypatch.setattr(Images, "batches", counting)
    spec = DataSpec(10, 5, 200, (1, 4, 4), (0.0,), (1.0,), soft_labels=bool(mix))

    def shown(share: Share) -> list[Packet]:
        plan = Plan(10, 5, 4, epochs=1, share=share)
        source = ImageSource(images(), spec, [RandomCrop(1)], plan, 0, torch.device("cpu"), mix)
        return [packet for packet in source.packets(plan.all_tags()) if packet.tag.kind is Kind.TRAIN]

    whole, first, second = shown(Share()), shown(Share(0, 2)), shown(Share(1, 2))
    assert len(whole) == 2 and read == ([4, 4, 4] if mix else [4, 2, 2])
    for packet, *parts in zip(whole, first, second, strict=True):
        for field in ("x", "label"):
            assert torch.equal(packet[field], torch.cat([part[field] for part in parts]))


def test_a_short_test_batch_is_filled_up() -> None:
    last = packets(Plan(10, 5, 4, epochs=1))[-1]
    assert last.tag == Tag(Kind.TEST, 2, 1)
    assert last["label"].tolist() == [104, 100, 101, 102]


def test_image_label_and_x_are_of_one_sample() -> None:
    for packet in packets(Plan(10, 5, 5, epochs=1)):
        assert torch.equal(packet["image"][:, 0, 0, 0].long(), packet["label"])
        assert torch.allclose(packet["x"][:, 0, 1, 1] * 255, packet["label"].float())


def test_a_crop_is_a_window_of_the_padded_image() -> None:
    batch = torch.randint(0, 256, (50, 3, 6, 5), dtype=torch.uint8)
    cropped = RandomCrop(2)(batch, torch.Generator().manual_seed(0))
    padded = torch.nn.functional.pad(batch, (2, 2, 2, 2))
    offsets = set()
    for image, out in zip(padded, cropped, strict=True):
        windows = [(i, j) for i in range(5) for j in range(5) if torch.equal(image[:, i : i + 6, j : j + 5], out)]
        assert windows
        offsets.update(windows)
    assert len(offsets) > 15


def test_a_reflecting_crop_has_no_black_border() -> None:
    batch = torch.full((20, 1, 4, 4), 7, dtype=torch.uint8)
    assert (RandomCrop(2, "reflect")(batch, torch.Generator()) == 7).all()


def test_a_reflection_is_no_larger_than_the_image() -> None:
    with pytest.raises(SettingError, match="padding=4 of RandomCrop with mode=reflect must be less than the 4 pixels"):
        RandomCrop(4, "reflect")(torch.zeros(2, 3, 4, 9, dtype=torch.uint8), torch.Generator())


def test_about_half_of_the_images_are_mirrored() -> None:
    batch = torch.arange(4, dtype=torch.uint8).view(1, 1, 1, 4).expand(200, 1, 1, 4).contiguous()
    mirrored = HorizontalFlip()(batch, torch.Generator().manual_seed(0))[:, 0, 0, 0] == 3
    assert 70 < int(mirrored.sum()) < 130
