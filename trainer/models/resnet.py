"""Residual networks in their CIFAR form (He et al., arXiv 1512.03385, section 4.2)."""

import torch
from torch import Tensor, nn

from trainer.errors import SettingError, at_least
from trainer.models.heads import PoolHead
from trainer.models.initial import kaiming_fan_out


class ConvNorm(nn.Sequential):
    """Convolution and batch norm."""

    def __init__(self, channels: int, out_channels: int, kernel: int, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, out_channels, kernel, stride, kernel // 2, bias=False)
        self.norm = nn.BatchNorm2d(out_channels)


class Stem(ConvNorm):
    """A 3x3 convolution from the image to the first stage's width: ``(N, 3, H, W)`` to ``(N, width, H, W)``."""

    def forward(self, x: Tensor) -> Tensor:
        """``(N, C, H, W)`` to ``(N, width, H, W)``."""
        return torch.relu_(super().forward(x))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions around a shortcut, which is a projection (1x1 convolution) where the shape changes."""

    def __init__(self, channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.first = ConvNorm(channels, out_channels, 3, stride)
        self.second = ConvNorm(out_channels, out_channels, 3)
        same = stride == 1 and channels == out_channels
        self.shortcut = nn.Identity() if same else ConvNorm(channels, out_channels, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        """``(N, C, H, W)`` to ``(N, out_channels, H / stride, W / stride)``."""
        return torch.relu_(self.second(torch.relu_(self.first(x))) + self.shortcut(x))


def resnet_cifar(depth: int, num_classes: int, image_shape: tuple[int, int, int], width: int = 16) -> nn.Sequential:
    """ResNet-``depth`` for small images: a stem and three stages of ``(depth - 2) / 6`` blocks with widths ``width``,
    2x and 4x, each stage after the first at half the resolution.

    Args:
        depth: number of weight layers; 6 n + 2.
        num_classes: size of the logits, ``(N, num_classes)``.
        image_shape: ``(C, H, W)`` of one image; any H and W.
        width: channels of the first stage.

    Raises:
        SettingError: ``depth`` is not 6 n + 2, or there are no channels.
    """
    blocks, remainder = divmod(depth - 2, 6)
    if blocks < 1 or remainder:
        raise SettingError(f"model.depth={depth} is no CIFAR ResNet; the depth is 6 n + 2: 20, 32, 44, 56, 110")
    at_least(1, {"model.width": width})
    model = nn.Sequential()
    model.add_module("stem", Stem(image_shape[0], width, 3))
    channels = width
    for stage in range(3):
        out_channels = width * 2**stage
        layer = nn.Sequential()
        for index in range(blocks):
            stride = 2 if stage > 0 and index == 0 else 1
            layer.append(BasicBlock(channels, out_channels, stride))
            channels = out_channels
        model.add_module(f"layer{stage + 1}", layer)
    model.add_module("head", PoolHead(channels, num_classes))
    return kaiming_fan_out(model)
