"""Decoders: what a block's input, or the image, is reconstructed by from the block's output."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainer.errors import SettingError

HIDDEN = 12
"""Channels between the two convolutions of a decoder of maps, as in InfoPro."""


class MapDecoder(nn.Module):
    """Resize to the target's resolution and convolve twice: ``(N, C, H, W)`` to ``(N, c, h, w)``."""

    def __init__(self, features: tuple[int, int, int], target: tuple[int, int, int]) -> None:
        super().__init__()
        self.size = target[1:]
        hidden = max(HIDDEN, target[0])
        self.layers = nn.Sequential(
            nn.Conv2d(features[0], hidden, 3, padding=1, bias=False),
            nn.BatchNorm2d(hidden),
            nn.ReLU(inplace=True),
            nn.Conv2d(hidden, target[0], 3, padding=1),
        )

    def forward(self, x: Tensor) -> Tensor:
        """``(N, C, H, W)`` to ``(N, c, h, w)``."""
        resized = F.interpolate(x, self.size, mode="bilinear", align_corners=True)
        decoded: Tensor = self.layers(resized)
        return decoded


class PatchDecoder(nn.Module):
    """A linear layer from each token to the pixels of its patch: ``(N, T, D)`` to ``(N, c, h, w)``. Tokens in front of
    those of the patches, such as a class token, have no pixels."""

    def __init__(self, features: tuple[int, int], target: tuple[int, int, int]) -> None:
        """Raises ``SettingError`` where no square patches make as many tokens."""
        super().__init__()
        tokens, width = features
        self.channels, height, wide = target
        self.patch, self.rows, self.columns = patch_grid(tokens, height, wide)
        self.norm = nn.LayerNorm(width)
        self.pixels = nn.Linear(width, self.channels * self.patch**2)

    def forward(self, x: Tensor) -> Tensor:
        """``(N, T, D)`` to ``(N, c, h, w)``."""
        n, p = x.shape[0], self.patch
        pixels = self.pixels(self.norm(x[:, -self.rows * self.columns :]))
        patches = pixels.view(n, self.rows, self.columns, self.channels, p, p)
        return patches.permute(0, 3, 1, 4, 2, 5).reshape(n, self.channels, self.rows * p, self.columns * p)


def patch_grid(tokens: int, height: int, width: int) -> tuple[int, int, int]:
    """Side in pixels, rows and columns of the square patches that ``tokens`` stand for in an image, of which up to two
    may be class tokens. Raises ``SettingError`` where there are none."""
    for patch in range(1, min(height, width) + 1):
        rows, columns = height // patch, width // patch
        if height % patch == 0 and width % patch == 0 and 0 <= tokens - rows * columns <= 2:
            return patch, rows, columns
    raise SettingError(
        f"InfoPro has no decoder for {tokens} tokens, which are no square patches of {height}x{width} pixels; cut "
        f"elsewhere, or let it reconstruct the input where it reconstructs the image"
    )


def decoder(features: tuple[int, ...], target: tuple[int, ...]) -> nn.Module:
    """A decoder of features of shape ``features`` to shape ``target``, both of one sample. Raises ``SettingError``
    where there is none."""
    match features, target:
        case (channels, height, width), (out_channels, high, wide):
            return MapDecoder((channels, height, width), (out_channels, high, wide))
        case (tokens, width), (channels, high, wide):
            return PatchDecoder((tokens, width), (channels, high, wide))
        case (tokens, width), (out_tokens, out_width) if tokens == out_tokens:
            return nn.Sequential(nn.LayerNorm(width), nn.Linear(width, out_width))
        case (width,), _:
            return nn.Sequential(nn.Linear(width, math.prod(target)), nn.Unflatten(1, torch.Size(target)))
    raise SettingError(f"InfoPro has no decoder from features of shape {features} to shape {target}; cut elsewhere")
