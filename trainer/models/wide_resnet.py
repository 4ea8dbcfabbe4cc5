"""Wide residual networks (Zagoruyko & Komodakis, arXiv 1605.07146)."""

from torch import Tensor, nn

from trainer.errors import SettingError, at_least, check_rate
from trainer.models.heads import PoolHead
from trainer.models.initial import kaiming_fan_out


class PreActivation(nn.Module):
    """Two 3x3 convolutions, each after batch norm and ReLU, around a shortcut, which is a projection where the shape
    changes."""

    def __init__(self, channels: int, out_channels: int, stride: int, dropout: float) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(channels)
        self.conv1 = nn.Conv2d(channels, out_channels, 3, stride, 1, bias=False)
        self.dropout = nn.Dropout(dropout)
        self.norm2 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, 1, 1, bias=False)
        self.relu = nn.ReLU(inplace=True)
        same = stride == 1 and channels == out_channels
        self.shortcut = None if same else nn.Conv2d(channels, out_channels, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """``(N, C, H, W)`` to ``(N, out_channels, H / stride, W / stride)``."""
        active = self.relu(self.norm1(x))
        branch = self.conv2(self.dropout(self.relu(self.norm2(self.conv1(active)))))
        return branch + (x if self.shortcut is None else self.shortcut(active))


class ActivatedPoolHead(nn.Sequential):
    """Batch norm, ReLU, average pool and linear classifier: ``(N, C, H, W)`` to ``(N, classes)``."""

    def __init__(self, channels: int, num_classes: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)
        self.classifier = PoolHead(channels, num_classes)


def wide_resnet(
    depth: int, widen: int, num_classes: int, image_shape: tuple[int, int, int], dropout: float = 0.0
) -> nn.Sequential:
    """WRN-``depth``-``widen`` for small images: a stem and three stages of ``(depth - 4) / 6`` blocks.

    Args:
        depth: 6 n + 4.
        widen: the stages have 16, 32 and 64 channels times this.
        num_classes: size of the logits, ``(N, num_classes)``.
        image_shape: ``(C, H, W)`` of one image; any H and W.
        dropout: rate between the convolutions of a block.

    Raises:
        SettingError: ``depth`` is not 6 n + 4, or the rate is not one.
    """
    blocks, remainder = divmod(depth - 4, 6)
    if blocks < 1 or remainder:
        raise SettingError(f"model.depth={depth} is no wide ResNet; the depth is 6 n + 4: 10, 16, 22, 28, 40")
    at_least(1, {"model.widen": widen})
    check_rate("model.dropout", dropout)
    model = nn.Sequential()
    model.add_module("stem", nn.Conv2d(image_shape[0], 16, 3, 1, 1, bias=False))
    channels = 16
    for stage in range(3):
        width, layer = 16 * widen * 2**stage, nn.Sequential()
        for index in range(blocks):
            layer.append(PreActivation(channels, width, 2 if stage > 0 and index == 0 else 1, dropout))
            channels = width
        model.add_module(f"layer{stage + 1}", layer)
    model.add_module("head", ActivatedPoolHead(channels, num_classes))
    return kaiming_fan_out(model)
