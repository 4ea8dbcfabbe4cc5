"""Augmentations of a batch of uint8 images, as tensor operations on the images' device."""

from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from trainer.errors import SettingError


class Augmentation(Protocol):
    """One augmentation; all its draws come from the CPU generator it is given."""

    def __call__(self, images: Tensor, draw: torch.Generator) -> Tensor:
        """uint8 ``(N, C, H, W)`` to the same shape."""
        ...


class RandomCrop:
    """Pad each side and cut out a window of the old size at a random place, another for every image."""

    def __init__(self, padding: int, mode: str = "constant") -> None:
        """``padding`` is in pixels; ``mode`` is ``constant`` (black) or ``reflect``."""
        if padding < 0:
            raise SettingError(f"padding={padding} of RandomCrop can't be negative")
        if mode not in ("constant", "reflect"):
            raise SettingError(f"mode={mode} of RandomCrop is unknown; it is constant or reflect")
        self._padding, self._mode = padding, mode

    def __call__(self, images: Tensor, draw: torch.Generator) -> Tensor:
        """uint8 ``(N, C, H, W)`` to the same shape."""
        n, _, height, width = images.shape
        p = self._padding
        padded = F.pad(images.float(), (p, p, p, p), mode=self._mode).to(torch.uint8) if p else images
        rows, columns = torch.randint(2 * p + 1, (2, n, 1), generator=draw).to(images.device)
        rows = (rows + torch.arange(height, device=images.device))[:, :, None]
        columns = (columns + torch.arange(width, device=images.device))[:, None, :]
        sample = torch.arange(n, device=images.device)[:, None, None]
        # The advanced indices come first in the result: (N, H, W, C), which is channels-last seen as (N, C, H, W).
        return padded.permute(0, 2, 3, 1)[sample, rows, columns].permute(0, 3, 1, 2)


class HorizontalFlip:
    """Mirror every other image, at random."""

    def __call__(self, images: Tensor, draw: torch.Generator) -> Tensor:
        """uint8 ``(N, C, H, W)`` to the same shape."""
        flip = (torch.rand(len(images), generator=draw) < 0.5).to(images.device)
        return torch.where(flip[:, None, None, None], images.flip(3), images)
