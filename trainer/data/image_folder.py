"""Images of any size from a folder per class, decoded by worker processes while the pipeline trains."""

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from contextlib import nullcontext
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from trainer.clock import Clock
from trainer.cores import available_cores
from trainer.data.images import DataSpec, Pick, check_normalization, split_off
from trainer.errors import SettingError, at_least
from trainer.packet import Kind
from trainer.seeds import derive

TEST_CROP = 0.875
"""A test image is the center of an image whose shorter side is the image size over this (224 of 256)."""

READ_AHEAD = 4
"""Batches that each worker may have ready."""


class ImageFolder:
    """``root/train/CLASS/*.jpg`` and ``root/val/CLASS/*.jpg``, or any other of torchvision's ``IMG_EXTENSIONS``:
    .jpeg, .png, .ppm, .bmp, .pgm, .tif, .tiff, .webp. Hidden folders are no classes."""

    def __init__(
        self,
        root: str | None,
        image_size: int | None,
        train: str = "train",
        test: str = "val",
        workers: int = 4,
        smallest_crop: float = 0.08,
    ) -> None:
        """``train`` and ``test`` are the splits' folders under ``root``. A training image is a random window, of at
        least ``smallest_crop`` of the area, scaled to ``image_size`` pixels (Szegedy et al., arXiv 1409.4842).
        ``workers`` is the number of processes that decode, at most one for each core; 0 for none."""
        if root is None:
            raise SettingError("dataset.root is not set; dataset=image_folder reads dataset.root=FOLDER")
        if image_size is None:
            raise SettingError("dataset.image_size=null, but dataset=image_folder needs one, such as 224")
        at_least(0, {"dataset.workers": workers})
        if not 0 < smallest_crop <= 1:
            raise SettingError(f"dataset.smallest_crop={smallest_crop} must be above 0 and at most 1")
        self._root, self._splits, self._size = Path(root).expanduser(), (train, test), image_size
        self._workers, self._smallest_crop = workers, smallest_crop

    def load(self) -> "FolderImages":
        """Find the files; none is opened. Raises ``SettingError`` where a folder is missing or classes differ."""
        (train, classes), (test, tested) = (self._find(name) for name in self._splits)
        if classes != tested:
            odd = sorted(set(classes) ^ set(tested))[0]
            raise SettingError(
                f"dataset.root={self._root} has the class {odd} in only one of {' and '.join(self._splits)}; both need "
                f"the same classes"
            )
        if len(classes) < 2:
            raise SettingError(
                f"dataset.root={self._root} has only the class {classes[0]}; a classifier needs at least 2 classes"
            )
        reader = _Reader(self._size, self._smallest_crop)
        return FolderImages(_Files.of(train), _Files.of(test), len(classes), reader, self._workers)

    def _find(self, split: str) -> tuple[list[tuple[str, int]], list[str]]:
        from torchvision.datasets.folder import IMG_EXTENSIONS, find_classes, make_dataset

        folder = self._root / split
        try:
            classes = [name for name in find_classes(folder)[0] if not name.startswith(".")]
            if not classes:
                raise FileNotFoundError(f"{folder} has no folder of a class")
            numbers = {name: number for number, name in enumerate(classes)}
            return make_dataset(str(folder), numbers, IMG_EXTENSIONS), classes
        except OSError as error:
            raise SettingError(
                f"dataset.root={self._root} can't be read: {error}; it must hold {split}/CLASS/IMAGE for every class"
            ) from error


@dataclass(frozen=True)
class _Files:
    paths: Sequence[str]
    labels: Tensor

    @classmethod
    def of(cls, found: Sequence[tuple[str, int]]) -> "_Files":
        return cls([path for path, _ in found], torch.tensor([label for _, label in found]))

    def at(self, places: Tensor) -> "_Files":
        return _Files([self.paths[place] for place in places.tolist()], self.labels[places])


@dataclass(frozen=True)
class _Request:
    """One image for a worker: a random window of it in training, its center in a test (``draw`` is None)."""

    path: str
    draw: int | None


@dataclass(frozen=True)
class _Reader(Dataset[Tensor | str]):
    """Decodes one image after another, in a worker process."""

    size: int
    smallest_crop: float

    def __getitem__(self, request: _Request) -> Tensor | str:
        """uint8 ``(3, size, size)``; or what is wrong with the file, for the main process to say."""
        import numpy as np
        from PIL import Image

        try:
            with Image.open(request.path) as file:
                if file.mode.startswith(("I", "F")):  # PIL would cut off what does not fit
                    raise ValueError(f"its pixels, of PIL's mode {file.mode}, have more than 8 bits; convert it")
                image = file.convert("RGB")
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            return f"{request.path} can't be read as an image: {error}"
        box = self._center(*image.size) if request.draw is None else self._window(*image.size, request.draw)
        scaled = image.resize((self.size, self.size), Image.Resampling.BILINEAR, box)
        return torch.from_numpy(np.array(scaled)).permute(2, 0, 1)

    def _center(self, width: int, height: int) -> tuple[float, float, float, float]:
        side = min(width, height) * TEST_CROP
        left, top = (width - side) / 2, (height - side) / 2
        return left, top, left + side, top + side

    def _window(self, width: int, height: int, draw: int) -> tuple[float, float, float, float]:
        """A window of random area and of an aspect ratio of 3/4 to 4/3; the image's largest square after ten that do
        not fit."""
        numbers = torch.rand(11, 4, generator=torch.Generator().manual_seed(draw)).tolist()
        for area, ratio, x, y in numbers[:10]:
            share = self.smallest_crop + (1 - self.smallest_crop) * area
            aspect = (4 / 3) ** (2 * ratio - 1)
            w = (width * height * share * aspect) ** 0.5
            h = (width * height * share / aspect) ** 0.5
            if w <= width and h <= height:
                left, top = x * (width - w), y * (height - h)
                return left, top, left + w, top + h
        side = min(width, height)
        left, top = numbers[10][2] * (width - side), numbers[10][3] * (height - side)
        return left, top, left + side, top + side


@dataclass
class _Requests:
    """What the loader's workers are asked for: the requests of one batch after another."""

    batches: Iterable[list[_Request]] = ()

    def __iter__(self) -> Iterator[list[_Request]]:
        return iter(self.batches)


def _collate(images: list[Tensor | str]) -> Tensor | str:
    """A batch, or the first thing wrong with it."""
    wrong = [image for image in images if isinstance(image, str)]
    return wrong[0] if wrong else torch.stack([image for image in images if isinstance(image, Tensor)])


@dataclass
class FolderImages:
    """The files of two splits, and the workers that decode them."""

    train: _Files
    test: _Files
    num_classes: int
    reader: _Reader
    workers: int
    clock: Clock | None = None
    pin: bool = False
    _requests: _Requests = field(default_factory=_Requests, repr=False)
    _loader: "DataLoader[Tensor | str] | None" = field(default=None, repr=False)

    def files(self, kind: Kind) -> _Files:
        """The files of the split for ``kind``."""
        return self.train if kind is Kind.TRAIN else self.test

    def size(self, kind: Kind) -> int:
        """How many images the split for ``kind`` has."""
        return len(self.files(kind).paths)

    def spec(self, mean: list[float] | None, std: list[float] | None) -> DataSpec:
        """The facts about these images. Nothing is read, so mean and standard deviation must be given."""
        if mean is None or std is None:
            raise SettingError(
                "dataset.mean and dataset.std must be set for dataset=image_folder, which is not in memory"
            )
        check_normalization(mean, std, 3)
        size = self.reader.size
        return DataSpec(
            self.size(Kind.TRAIN), self.size(Kind.TEST), self.num_classes, (3, size, size), tuple(mean), tuple(std)
        )

    def resized(self, size: int | None) -> "FolderImages":
        """As they are: workers scale every image when they decode it."""
        return self

    def held_out(self, count: int) -> "FolderImages":
        """With ``count`` of the training images in the place of the test images, the same ones in every run."""
        train, held_out = split_off(self.size(Kind.TRAIN), count)
        return replace(self, train=self.train.at(train), test=self.train.at(held_out))

    def on(self, device: torch.device, clock: Clock | None = None) -> "FolderImages":
        """The same with workers of its own; the images stay in host memory, pinned for a GPU."""
        return replace(self, clock=clock, pin=device.type == "cuda", _requests=_Requests(), _loader=None)

    def batches(self, picks: Iterable[Pick]) -> Iterator[tuple[Tensor, Tensor]]:
        """Images, uint8 ``(N, 3, H, W)``, and labels, int64 ``(N,)``, of each pick, decoded ahead. Raises
        ``SettingError`` for a file that is no image."""
        labels: list[Tensor] = []

        def asked() -> Iterator[list[_Request]]:
            for pick in picks:
                files = self.files(pick.kind)
                labels.append(files.labels[pick.places])
                yield [self._request(pick, files, place) for place in pick.places.tolist()]

        self._requests.batches = asked()
        batches = iter(self._open())
        while True:
            with self.clock.waiting_for_images() if self.clock else nullcontext():
                batch = next(batches, None)
            if batch is None:
                return
            if isinstance(batch, str):
                raise SettingError(batch)
            yield batch, labels.pop(0)

    def _request(self, pick: Pick, files: _Files, place: int) -> _Request:
        """What a worker is to do for one image."""
        draw = derive(pick.draw, place) if pick.kind is Kind.TRAIN else None
        return _Request(files.paths[place], draw)

    def _open(self) -> "DataLoader[Tensor | str]":
        """The loader, whose workers live as long as this object."""
        if self._loader is None:
            self._loader = DataLoader(
                self.reader,
                batch_sampler=self._requests,  # requests instead of indices
                num_workers=min(self.workers, available_cores()),
                collate_fn=_collate,
                prefetch_factor=READ_AHEAD if self.workers else None,
                persistent_workers=self.workers > 0,
                pin_memory=self.pin,
                worker_init_fn=_apart,
            )
        return self._loader


def _apart(worker: int) -> None:
    """Keep a worker out of the rank's process group, to which torchrun and terminals send their signals: a rank that is
    to stop still has steps to finish."""
    os.setpgrp()
