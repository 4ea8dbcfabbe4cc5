"""Residual networks in their ImageNet form (He et al., arXiv 1512.03385, section 4.1), of torchvision's blocks."""

from torch import nn

from trainer.errors import SettingError
from trainer.models.heads import PoolHead
from trainer.models.initial import kaiming_fan_out

STAGES = {
    18: ("BasicBlock", (2, 2, 2, 2)),
    34: ("BasicBlock", (3, 4, 6, 3)),
    50: ("Bottleneck", (3, 4, 6, 3)),
    101: ("Bottleneck", (3, 4, 23, 3)),
    152: ("Bottleneck", (3, 8, 36, 3)),
}
"""The kind of block and the number of blocks in each stage, by depth."""


class Stem(nn.Sequential):
    """A 7x7 convolution and a max-pool: ``(N, C, H, W)`` to ``(N, 64, H / 4, W / 4)``."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, 64, 7, 2, 3, bias=False)
        self.norm = nn.BatchNorm2d(64)
        self.relu = nn.ReLU(inplace=True)
        self.pool = nn.MaxPool2d(3, 2, 1)


def resnet_imagenet(depth: int, num_classes: int, image_shape: tuple[int, int, int]) -> nn.Sequential:
    """ResNet-``depth`` with its four stages of widths 64, 128, 256 and 512 (four times that for bottlenecks).

    Args:
        depth: 18, 34, 50, 101 or 152.
        num_classes: size of the logits, ``(N, num_classes)``.
        image_shape: ``(C, H, W)`` of one image; any H and W, though the network divides them by 32.

    Raises:
        SettingError: another depth.
    """
    from torchvision.models import resnet

    if depth not in STAGES:
        raise SettingError(f"model.depth={depth} is no ImageNet ResNet; it is one of {', '.join(map(str, STAGES))}")
    kind, lengths = STAGES[depth]
    block = getattr(resnet, kind)
    model = nn.Sequential()
    model.add_module("stem", Stem(image_shape[0]))
    channels = 64
    for stage, length in enumerate(lengths):
        width, layer = 64 * 2**stage, nn.Sequential()
        for index in range(length):
            stride = 2 if stage > 0 and index == 0 else 1
            layer.append(block(channels, width, stride, _shortcut(channels, width * block.expansion, stride)))
            channels = width * block.expansion
        model.add_module(f"layer{stage + 1}", layer)
    model.add_module("head", PoolHead(channels, num_classes))
    return kaiming_fan_out(model)


def _shortcut(channels: int, out_channels: int, stride: int) -> nn.Module | None:
    """A projection where the shape changes."""
    if stride == 1 and channels == out_channels:
        return None
    return nn.Sequential(nn.Conv2d(channels, out_channels, 1, stride, bias=False), nn.BatchNorm2d(out_channels))
