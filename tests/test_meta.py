"""What is found on the meta device is what torch gives."""

import pytest
import torch
from torch import nn

from trainer.meta import META, Shapes, on_meta


def gradients(layer: nn.Module, shape: tuple[int, ...]) -> list[torch.Tensor | None]:
    """Output and gradients of a step."""
    layer.zero_grad()
    x = torch.ones(shape, device=META).to(memory_format=torch.channels_last).requires_grad_()
    output = layer(x)
    output.sum().backward()
    return [output, x.grad, *(parameter.grad for parameter in layer.parameters())]


@pytest.mark.parametrize("options", [{}, {"affine": False}, {"track_running_stats": False}], ids=str)
@pytest.mark.parametrize("training", [True, False])
def test_batch_norm_has_the_shapes_and_layouts_of_torch(options: dict[str, bool], training: bool) -> None:
    layer = nn.BatchNorm2d(4, **options, device=META).train(training)
    wanted = gradients(layer, (2, 4, 3, 3))
    with Shapes():
        found = gradients(layer, (2, 4, 3, 3))
    for one, other in zip(found, wanted, strict=True):
        assert one is not None and other is not None
        assert (one.shape, one.dtype, one.stride()) == (other.shape, other.dtype, other.stride())


def test_batch_norm_of_values_is_computed() -> None:
    layer, x = nn.BatchNorm2d(4), torch.randn(2, 4, 3, 3)
    wanted = layer(x)
    with Shapes():
        assert torch.equal(layer(x), wanted)


def test_batch_norm_of_another_number_of_channels_is_still_an_error() -> None:
    with Shapes(), pytest.raises(RuntimeError, match="running_mean"):
        nn.BatchNorm2d(4, device=META)(torch.empty(2, 3, 5, 5, device=META))


def test_a_copy_on_the_meta_device_keeps_what_is_shared_and_what_is_frozen() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3), nn.Linear(3, 3))
    model[2].weight = model[0].weight
    model[0].bias.requires_grad_(False)
    copied = on_meta(model)
    assert all(tensor.is_meta for tensor in copied.state_dict().values())
    assert copied[2].weight is copied[0].weight and not copied[0].bias.requires_grad
    assert not any(tensor.is_meta for tensor in model.state_dict().values())
