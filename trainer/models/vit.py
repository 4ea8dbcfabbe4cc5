"""Vision transformers (Dosovitskiy et al., arXiv 2010.11929) for images of any size."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainer.errors import SettingError, at_least, check_rate
from trainer.models.heads import TokenHead


class PatchEmbedding(nn.Module):
    """Cut an image into square patches and embed each, with a learned position: ``(N, C, H, W)`` to ``(N, T,
    width)``."""

    def __init__(self, channels: int, patch: int, tokens: int, width: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.project = nn.Conv2d(channels, width, patch, patch)
        self.position = nn.Parameter(torch.empty(1, tokens, width))
        nn.init.trunc_normal_(self.position, std=0.02)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """``(N, C, H, W)`` to ``(N, T, width)``."""
        return self.dropout(self.project(x).flatten(2).transpose(1, 2) + self.position)


class EncoderLayer(nn.Module):
    """Self-attention and a two-layer perceptron, each after a layer norm and around a shortcut."""

    def __init__(
        self, width: int, heads: int, mlp_ratio: int, dropout: float = 0.0, stochastic_depth: float = 0.0
    ) -> None:
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, mlp_ratio * width), nn.GELU(), nn.Linear(mlp_ratio * width, width))
        self.dropout = nn.Dropout(dropout)
        self.drop_path = _drop_path(stochastic_depth)

    def attend(self, x: Tensor) -> Tensor:
        """Multi-head self-attention, ``(N, T, width)`` to the same."""
        n, t, width = x.shape
        q, k, v = self.qkv(x).view(n, t, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        return self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(n, t, width))

    def forward(self, x: Tensor) -> Tensor:
        """``(N, T, width)`` to the same."""
        x = x + self.drop_path(self.dropout(self.attend(self.norm1(x))))
        return x + self.drop_path(self.dropout(self.mlp(self.norm2(x))))


def _drop_path(rate: float) -> nn.Module:
    """Stochastic depth (Huang et al., arXiv 1603.09382): leaves out a residual branch, for each sample at random."""
    if rate == 0:
        return nn.Identity()
    from torchvision.ops import StochasticDepth

    depth: nn.Module = StochasticDepth(rate, mode="row")
    return depth


def vit(
    patch: int,
    depth: int,
    width: int,
    heads: int,
    num_classes: int,
    image_shape: tuple[int, int, int],
    mlp_ratio: int = 4,
    dropout: float = 0.0,
    stochastic_depth: float = 0.0,
) -> nn.Sequential:
    """A vision transformer without a class token: the head averages the tokens (Beyer et al., arXiv 2205.01580).

    Args:
        patch: side of a patch in pixels; divides H and W.
        depth: number of encoder layers.
        width: size of a token; a multiple of ``heads``.
        heads: attention heads.
        num_classes: size of the logits, ``(N, num_classes)``.
        image_shape: ``(C, H, W)`` of one image.
        mlp_ratio: hidden size of the perceptron over ``width``.
        dropout: rate after the embedding, the attention and the perceptron.
        stochastic_depth: rate at which the last layer's branches are left out; it rises from 0 in the first.

    Raises:
        SettingError: the patch does not divide the image, the heads do not divide the width, a number is not
            positive, or a rate is not one.
    """
    at_least(1, {"model.patch": patch, "model.depth": depth, "model.width": width, "model.heads": heads})
    at_least(1, {"model.mlp_ratio": mlp_ratio})
    channels, height, wide = image_shape
    if height % patch or wide % patch:
        raise SettingError(
            f"model.patch={patch} does not divide the image of {height}x{wide} pixels; choose a patch that "
            f"does, or dataset.image_size"
        )
    if width % heads:
        raise SettingError(f"model.heads={heads} does not divide model.width={width}")
    check_rate("model.dropout", dropout)
    check_rate("model.stochastic_depth", stochastic_depth)
    model = nn.Sequential()
    model.add_module("stem", PatchEmbedding(channels, patch, (height // patch) * (wide // patch), width, dropout))
    rates = [stochastic_depth * index / max(1, depth - 1) for index in range(depth)]
    layers = (EncoderLayer(width, heads, mlp_ratio, dropout, rate) for rate in rates)
    model.add_module("encoder", nn.Sequential(*layers))
    model.add_module("head", TokenHead(width, num_classes))
    return model
