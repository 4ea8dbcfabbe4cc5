"""Vision transformers: units, shapes and attention."""

import torch
import torch.nn.functional as F

from trainer.models.vit import EncoderLayer, vit
from trainer.units import units_of


def test_units_and_shapes() -> None:
    model = vit(4, 12, 192, 3, num_classes=5, image_shape=(3, 32, 32))
    units = units_of(model)
    assert list(units) == ["stem", *(f"encoder.{index}" for index in range(12)), "head"]
    x = torch.randn(2, 3, 32, 32)
    assert units["stem"](x).shape == (2, 64, 192)
    assert model(x).shape == (2, 5)


def test_attention_is_softmax_of_scaled_products() -> None:
    torch.manual_seed(0)
    layer = EncoderLayer(8, 2, 4)
    x = torch.randn(2, 5, 8)
    q, k, v = layer.qkv(x).split(8, dim=2)
    heads = []
    for part in (slice(0, 4), slice(4, 8)):
        weights = F.softmax(q[..., part] @ k[..., part].transpose(1, 2) / 2, dim=-1)
        heads.append(weights @ v[..., part])
    assert torch.allclose(layer.attend(x), layer.out(torch.cat(heads, 2)), atol=1e-6)
