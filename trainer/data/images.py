"""Images in memory: what every dataset gives, checked once for all of them."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from trainer.clock import Clock
from trainer.errors import SettingError
from trainer.hostcopy import to_device
from trainer.packet import Kind
from trainer.seeds import generator


@dataclass(frozen=True)
class Split:
    """Images ``(N, C, H, W)``, uint8, and labels ``(N,)``, int64."""

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: torch.device) -> "Split":
        """The same on a device, the images channels-last."""
        return Split(self.images.to(device, memory_format=torch.channels_last), self.labels.to(device))

    def at(self, places: Tensor) -> tuple[Tensor, Tensor]:
        """Images and labels at ``places``, ``(N,)``: whole images are copied where they lie channels-last."""
        images = self.images.permute(0, 2, 3, 1).index_select(0, places).permute(0, 3, 1, 2)
        return images, self.labels.index_select(0, places)


@dataclass(frozen=True)
class DataSpec:
    """What every rank knows of the data, without having an image: small, and JSON."""

    train_size: int
    test_size: int
    num_classes: int
    image_shape: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    soft_labels: bool = False
    """Whether a label is a class probability for every class, ``(N, classes)``, or an index, ``(N,)``."""

    def to_json(self) -> dict[str, Any]:
        """For ``from_json``."""
        return asdict(self)

    def normalize(self, images: Tensor) -> Tensor:
        """uint8 images ``(N, C, H, W)``, of any size, as a network wants them; see ``Normalizer``."""
        channels, height, width = images.shape[1:]
        return Normalizer(replace(self, image_shape=(channels, height, width)), images.device)(images)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "DataSpec":
        """What ``to_json`` gave, after a journey."""
        fields: dict[str, Any] = {key: tuple(x) if isinstance(x, list) else x for key, x in value.items()}
        return cls(**fields)


class Normalizer:
    """Brings each channel of images of one shape to mean 0 and standard deviation 1."""

    def __init__(self, spec: DataSpec, device: torch.device) -> None:
        # As large as an image: to repeat three numbers for every pixel would take five times as long on a CPU.
        mean, std = (
            255 * torch.tensor(values, device=device).view(-1, 1, 1).expand(spec.image_shape)[None]
            for values in (spec.mean, spec.std)
        )
        self._mean = mean.contiguous(memory_format=torch.channels_last)
        self._scale = 1 / std.contiguous(memory_format=torch.channels_last)

    def __call__(self, images: Tensor) -> Tensor:
        """uint8 images ``(N, C, H, W)`` to float32, channels-last."""
        return images.contiguous(memory_format=torch.channels_last).float().sub_(self._mean).mul_(self._scale)


@dataclass(frozen=True)
class Pick:
    """Which images make a batch: their places in the split for ``kind``, ``(N,)``, and in training a seed for draws
    while they are read."""

    kind: Kind
    places: Tensor
    draw: int = 0


class Pictures(Protocol):
    """What a dataset gives: the images of its two splits, wherever they lie."""

    def size(self, kind: Kind) -> int:
        """How many images the split for ``kind`` has."""
        ...

    def spec(self, mean: list[float] | None, std: list[float] | None) -> DataSpec:
        """The facts about these images, for every rank."""
        ...

    def resized(self, size: int | None) -> "Pictures":
        """The same with every image ``size`` x ``size`` pixels; as they are where ``size`` is None."""
        ...

    def held_out(self, count: int) -> "Pictures":
        """The same with the last ``count`` of the shuffled training images in the place of the test images."""
        ...

    def on(self, device: torch.device, clock: Clock | None = None) -> "Pictures":
        """The same, ready to be read from ``device``; ``clock`` is told of every wait for an image."""
        ...

    def batches(self, picks: Iterable[Pick]) -> Iterator[tuple[Tensor, Tensor]]:
        """Images, uint8 ``(N, C, H, W)``, and labels, int64 ``(N,)``, of each pick. May read ``picks`` far ahead."""
        ...


@dataclass(frozen=True)
class Images:
    """A dataset in memory."""

    train: Split
    test: Split
    num_classes: int

    def split(self, kind: Kind) -> Split:
        """The images for training, or for a test."""
        return self.train if kind is Kind.TRAIN else self.test

    def size(self, kind: Kind) -> int:
        """How many images the split for ``kind`` has."""
        return len(self.split(kind))

    def held_out(self, count: int) -> "Images":
        """With ``count`` of the training images in the place of the test images, the same ones in every run."""
        train, held_out = split_off(len(self.train), count)
        return Images(Split(*self.train.at(train)), Split(*self.train.at(held_out)), self.num_classes)

    def on(self, device: torch.device, clock: Clock | None = None) -> "Images":
        """The same on a device."""
        return Images(self.train.to(device), self.test.to(device), self.num_classes)

    def batches(self, picks: Iterable[Pick]) -> Iterator[tuple[Tensor, Tensor]]:
        """Images, uint8 ``(N, C, H, W)``, and labels, int64 ``(N,)``, of each pick."""
        for pick in picks:
            split = self.split(pick.kind)
            yield split.at(to_device(pick.places, split.labels.device))

    def resized(self, size: int | None) -> "Images":
        """With every image ``size`` x ``size`` pixels (bilinear, antialiased); as they are where ``size`` is None."""
        return Images(_resized(self.train, size), _resized(self.test, size), self.num_classes)

    def spec(self, mean: list[float] | None, std: list[float] | None) -> DataSpec:
        """The facts about these images. Mean and standard deviation, each per channel on the scale 0 to 1, are those
        given, and those of the training images where they are not."""
        shape = self.train.images.shape[1:]
        channels = shape[0]
        check_normalization(mean, std, channels)
        by_channel = self.train.images.transpose(0, 1)
        counts = torch.stack([torch.bincount(channel.flatten(), minlength=256) for channel in by_channel]).double()
        levels = torch.arange(256, dtype=torch.float64) / 255
        share = counts / counts.sum(1, keepdim=True)
        found_mean = share @ levels
        found_std = (share @ levels**2 - found_mean**2).clamp(min=1e-8).sqrt()
        return DataSpec(
            len(self.train),
            len(self.test),
            self.num_classes,
            (channels, shape[1], shape[2]),
            tuple(mean or found_mean.tolist()),
            tuple(std or found_std.tolist()),
        )


class Dataset(Protocol):
    """What a dataset's class offers; its constructor takes the settings of its yaml."""

    def load(self) -> Pictures:
        """Read the images. Raises ``SettingError`` with what is wrong and what would be right."""
        ...


def check_normalization(mean: list[float] | None, std: list[float] | None, channels: int) -> None:
    """Raise ``SettingError`` for a mean or standard deviation that images of so many channels can't have."""
    for name, values in (("dataset.mean", mean), ("dataset.std", std)):
        if values is not None and len(values) != channels:
            raise SettingError(f"{name}={values} has {len(values)} values; the images have {channels} channels")
    if std is not None and min(std) <= 0:
        raise SettingError(f"dataset.std={std} must be above 0")


def tested_on(dataset: Mapping[str, Any]) -> str:
    """Which images a run with these settings of the group ``dataset`` tests on: ``test``, or ``validation`` where some
    are held out of the training data."""
    return "validation" if dataset.get("validation") else "test"


def split_off(size: int, count: int) -> tuple[Tensor, Tensor]:
    """The places of the images that stay for training and of the ``count`` held out of them, the same in every run.
    Raises ``SettingError`` where nothing would be left."""
    if not 0 < count < size:
        raise SettingError(f"dataset.validation={count} must lie between 0 and {size}, the number of training images")
    order = torch.randperm(size, generator=generator(0, "validation"))
    return order[:-count].sort().values, order[-count:].sort().values


def checked(train: Split, test: Split, num_classes: int | None, origin: str) -> Images:
    """``Images`` of two splits; ``origin`` names the data in errors. The number of classes, where not given, is the
    largest label plus one. Raises ``SettingError`` for an empty split, shapes that differ, or labels out of range."""
    for name, split in (("train", train), ("test", test)):
        if len(split.images) != len(split.labels):
            raise SettingError(f"{origin} has {len(split.images)} {name} images but {len(split.labels)} {name} labels")
        if not len(split):
            raise SettingError(f"{origin} has no {name} images; both splits need some")
    if train.images.shape[1:] != test.images.shape[1:]:
        raise SettingError(
            f"{origin} has train images of shape {tuple(train.images.shape[1:])} but test images of shape "
            f"{tuple(test.images.shape[1:])} (channels, height, width); they must agree"
        )
    labels = torch.cat((train.labels, test.labels))
    low, high = int(labels.min()), int(labels.max())
    if num_classes is None and high >= len(labels):
        raise SettingError(
            f"{origin} has labels up to {high} but only {len(labels)} images; number the classes from 0, or set "
            f"dataset.num_classes"
        )
    classes = high + 1 if num_classes is None else num_classes
    if low < 0 or high >= classes:
        raise SettingError(
            f"{origin} has labels from {low} to {high}; with {classes} classes they must lie in 0..{classes - 1}"
        )
    if classes < 2:
        raise SettingError(f"{origin} has only the label {low}; a classifier needs at least 2 classes")
    return Images(train, test, classes)


def _resized(split: Split, size: int | None) -> Split:
    images = split.images
    if size is None or images.shape[2:] == (size, size):
        return split
    parts = [F.interpolate(part.float(), (size, size), mode="bilinear", antialias=True) for part in images.split(1024)]
    return Split(torch.cat([part.round().clamp(0, 255).to(torch.uint8) for part in parts]), split.labels)
