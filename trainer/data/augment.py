"""Augmentations of a batch of uint8 images, as tensor operations on the images' device."""

from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from trainer.errors import SettingError
from trainer.hostcopy import to_device


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
        if self._mode == "reflect" and p >= min(height, width):
            raise SettingError(
                f"padding={p} of RandomCrop with mode=reflect must be less than the {min(height, width)} pixels of an "
                f"image's shorter side"
            )
        padded = F.pad(images.float(), (p, p, p, p), mode=self._mode).to(torch.uint8) if p else images
        rows, columns = to_device(torch.randint(2 * p + 1, (2, n, 1), generator=draw), images.device)
        rows = (rows + torch.arange(height, device=images.device))[:, :, None]
        columns = (columns + torch.arange(width, device=images.device))[:, None, :]
        sample = torch.arange(n, device=images.device)[:, None, None]
        # The advanced indices come first in the result: (N, H, W, C), which is channels-last seen as (N, C, H, W).
        return padded.permute(0, 2, 3, 1)[sample, rows, columns].permute(0, 3, 1, 2)


class HorizontalFlip:
    """Mirror each image with probability 1/2."""

    def __call__(self, images: Tensor, draw: torch.Generator) -> Tensor:
        """uint8 ``(N, C, H, W)`` to the same shape."""
        flip = to_device(torch.rand(len(images), generator=draw) < 0.5, images.device)
        return torch.where(flip[:, None, None, None], images.flip(3), images)


class RandAugment:
    """Some random distortions of each image (Cubuk et al., arXiv 1909.13719), torchvision's."""

    def __init__(self, operations: int, magnitude: int = 9) -> None:
        """So many ``operations`` an image, of ``magnitude`` 0 to 30."""
        if operations < 1 or not 0 <= magnitude <= 30:
            raise SettingError(
                f"operations={operations}, magnitude={magnitude} of RandAugment must be at least 1, and 0 to 30"
            )
        from torchvision.transforms.v2 import RandAugment as Distortion

        self._distort = Distortion(operations, magnitude)

    def __call__(self, images: Tensor, draw: torch.Generator) -> Tensor:
        """uint8 ``(N, C, H, W)`` to the same shape. Raises ``SettingError`` for other than 1 or 3 channels."""
        if images.shape[1] not in (1, 3):
            raise SettingError(f"RandAugment distorts images with 1 or 3 channels, and these have {images.shape[1]}")
        with torch.random.fork_rng(devices=[]):  # torchvision draws from the global generator
            torch.default_generator.set_state(draw.get_state())
            return torch.stack([self._distort(image) for image in images])


class RandomErasing:
    """Noise in a random rectangle of some images (Zhong et al., arXiv 1708.04896)."""

    def __init__(self, probability: float, area: tuple[float, float] = (0.02, 0.4), aspect: float = 0.3) -> None:
        """``probability`` that an image is changed; the rectangle has a share of the image's ``area`` between the two
        given, and sides whose ratio is between ``aspect`` and its inverse."""
        if not 0 <= probability <= 1:
            raise SettingError(f"probability={probability} of RandomErasing must lie between 0 and 1")
        if len(area) != 2 or not 0 < area[0] <= area[1] <= 1 or not aspect > 0:
            raise SettingError(
                f"area={list(area)}, aspect={aspect} of RandomErasing must be two rising shares of at most 1, and "
                f"above 0"
            )
        self._probability, self._area, self._aspect = probability, area, aspect

    def __call__(self, images: Tensor, draw: torch.Generator) -> Tensor:
        """uint8 ``(N, C, H, W)`` to the same shape."""
        n, channels, height, width = images.shape
        chosen, *others = torch.rand(5, n, generator=draw)
        places = (chosen < self._probability).nonzero().flatten()
        share, ratio, row, column = (numbers[places] for numbers in others)
        low, high = self._area
        share = low + (high - low) * share
        ratio = self._aspect ** (2 * ratio - 1)
        h = (share * height * width * ratio).sqrt().round().clamp(1, height)
        w = (share * height * width / ratio).sqrt().round().clamp(1, width)
        top, left = row * (height - h + 1), column * (width - w + 1)
        # Rectangles and noise of the whole batch are put together on the host and copied at once.
        erased = torch.zeros(len(places), 1, height, width, dtype=torch.bool)
        noise = torch.zeros(len(places), channels, height, width, dtype=torch.uint8)
        for index, (y, x, rows, columns) in enumerate(torch.stack((top, left, h, w), 1).int().tolist()):
            window = (index, slice(None), slice(y, y + rows), slice(x, x + columns))
            erased[window] = True
            noise[window] = torch.randint(256, (channels, rows, columns), dtype=torch.uint8, generator=draw)
        places, erased, noise = (to_device(tensor, images.device) for tensor in (places, erased, noise))
        return images.index_copy(0, places, torch.where(erased, noise, images[places]))
