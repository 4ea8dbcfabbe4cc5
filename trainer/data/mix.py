"""What makes labels soft: mixing images of a batch, and smoothing."""

import math
from typing import Protocol

import torch
from torch import Tensor

from trainer.errors import SettingError, check_rate
from trainer.hostcopy import to_device


class Mix(Protocol):
    """A change of a batch's images and labels together; all its draws come from the CPU generator it is given."""

    def __call__(self, images: Tensor, labels: Tensor, draw: torch.Generator) -> tuple[Tensor, Tensor]:
        """uint8 ``(N, C, H, W)`` and probabilities ``(N, classes)`` to the same shapes."""
        ...


class MixUp:
    """The weighted mean of each image and another of the batch (Zhang et al., arXiv 1710.09412)."""

    def __init__(self, alpha: float) -> None:
        """The weight, one for a batch, is drawn from Beta(``alpha``, ``alpha``)."""
        if alpha <= 0:
            raise SettingError(f"dataset.mixup={alpha} must be above 0, or 0 for none")
        self._alpha = alpha

    def __call__(self, images: Tensor, labels: Tensor, draw: torch.Generator) -> tuple[Tensor, Tensor]:
        """uint8 ``(N, C, H, W)`` and probabilities ``(N, classes)`` to the same shapes."""
        share = _beta(self._alpha, draw)
        other = to_device(torch.randperm(len(images), generator=draw), images.device)
        mixed = torch.lerp(images[other].float(), images.float(), share).round().to(torch.uint8)
        return mixed, torch.lerp(labels[other], labels, share)


class CutMix:
    """A rectangle of another image of the batch in each (Yun et al., arXiv 1905.04899)."""

    def __init__(self, alpha: float) -> None:
        """The share of the image outside the rectangle, one for a batch, is drawn from Beta(``alpha``, ``alpha``)."""
        if alpha <= 0:
            raise SettingError(f"dataset.cutmix={alpha} must be above 0, or 0 for none")
        self._alpha = alpha

    def __call__(self, images: Tensor, labels: Tensor, draw: torch.Generator) -> tuple[Tensor, Tensor]:
        """uint8 ``(N, C, H, W)`` and probabilities ``(N, classes)`` to the same shapes."""
        height, width = images.shape[2:]
        side = math.sqrt(1 - _beta(self._alpha, draw))
        other = to_device(torch.randperm(len(images), generator=draw), images.device)
        top, bottom = _window(height, side, draw)
        left, right = _window(width, side, draw)
        mixed = images.clone()
        mixed[:, :, top:bottom, left:right] = images[other, :, top:bottom, left:right]
        kept = 1 - (bottom - top) * (right - left) / (height * width)
        return mixed, torch.lerp(labels[other], labels, kept)


class Either:
    """For each batch one of several, by lot."""

    def __init__(self, options: list[Mix]) -> None:
        """``options`` are equally likely."""
        self._options = options

    def __call__(self, images: Tensor, labels: Tensor, draw: torch.Generator) -> tuple[Tensor, Tensor]:
        """uint8 ``(N, C, H, W)`` and probabilities ``(N, classes)`` to the same shapes."""
        chosen = int(torch.randint(len(self._options), (), generator=draw))
        return self._options[chosen](images, labels, draw)


class LabelSmoothing:
    """A share of each label's probability, spread evenly over all classes (Szegedy et al., arXiv 1512.00567)."""

    def __init__(self, share: float) -> None:
        """``share`` is at least 0 and below 1."""
        check_rate("dataset.label_smoothing", share)
        self._share = share

    def __call__(self, images: Tensor, labels: Tensor, draw: torch.Generator) -> tuple[Tensor, Tensor]:
        """Images as they are; probabilities ``(N, classes)`` to the same shape."""
        return images, labels * (1 - self._share) + self._share / labels.shape[1]


def mixes(mixup: float, cutmix: float, label_smoothing: float) -> list[Mix]:
    """What the settings of these names ask for. Where both mixup and cutmix are wanted, each batch gets one of them."""
    wanted: list[Mix] = ([MixUp(mixup)] if mixup else []) + ([CutMix(cutmix)] if cutmix else [])
    if len(wanted) == 2:
        wanted = [Either(wanted)]
    return wanted + ([LabelSmoothing(label_smoothing)] if label_smoothing else [])


def _beta(alpha: float, draw: torch.Generator) -> float:
    """One number from Beta(alpha, alpha): of two gammas, the first's share."""
    a, b = torch._standard_gamma(torch.full((2,), alpha, dtype=torch.float64), generator=draw).tolist()
    return a / (a + b) if a + b > 0 else 0.5


def _window(size: int, share: float, draw: torch.Generator) -> tuple[int, int]:
    """A window of about ``share`` of ``size`` pixels around a random pixel, cut off at the edges."""
    half, center = int(size * share) // 2, int(torch.randint(size, (), generator=draw))
    return max(0, center - half), min(size, center + half)
