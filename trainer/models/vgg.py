"""VGG networks (Simonyan & Zisserman, arXiv 1409.1556) with batch norm, for small images."""

from torch import nn

from trainer.errors import SettingError
from trainer.models.heads import PoolHead
from trainer.models.initial import kaiming_fan_out

STAGES = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
"""3x3 convolutions in each stage, by depth (which counts the two hidden layers left out here)."""

WIDTHS = (64, 128, 256, 512, 512)


class ConvUnit(nn.Sequential):
    """Convolution, batch norm, ReLU, and at the end of a stage a 2x2 max-pool: ``(N, C, H, W)`` to ``(N, out_channels,
    H, W)`` or half of H and W."""

    def __init__(self, channels: int, out_channels: int, pool: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, out_channels, 3, 1, 1)
        self.norm = nn.BatchNorm2d(out_channels)
        self.relu = nn.ReLU(inplace=True)
        if pool:
            self.pool = nn.MaxPool2d(2)


def vgg(depth: int, num_classes: int, image_shape: tuple[int, int, int]) -> nn.Sequential:
    """VGG-``depth`` with one linear layer for a head, as is usual for images of 32 pixels.

    Args:
        depth: 11, 13, 16 or 19.
        num_classes: size of the logits, ``(N, num_classes)``.
        image_shape: ``(C, H, W)`` of one image; H and W of at least 32.

    Raises:
        SettingError: another depth, or an image that five max-pools leave nothing of.
    """
    if depth not in STAGES:
        raise SettingError(f"model.depth={depth} is no VGG; it is one of {', '.join(map(str, STAGES))}")
    channels, *size = image_shape
    if min(size) < 32:
        raise SettingError(
            f"VGG halves an image five times, which leaves nothing of {size[0]}x{size[1]} pixels; set "
            f"dataset.image_size=32 or more"
        )
    model = nn.Sequential()
    for stage, (length, width) in enumerate(zip(STAGES[depth], WIDTHS, strict=True)):
        layer = nn.Sequential()
        for index in range(length):
            layer.append(ConvUnit(channels, width, pool=index == length - 1))
            channels = width
        model.add_module(f"layer{stage + 1}", layer)
    model.add_module("head", PoolHead(channels, num_classes))
    for module in kaiming_fan_out(model).modules():
        if isinstance(module, nn.Conv2d):
            nn.init.zeros_(module.bias)  # type: ignore[arg-type]
    return model
