"""The meta device, on which tensors have a shape and no values: where shapes are found and costs are counted."""

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from trainer.errors import SettingError

M = TypeVar("M", bound=nn.Module)

META = torch.device("meta")


def on_meta(module: M) -> M:
    """A copy of ``module`` on the meta device, made without copying a value."""
    parameters = {id(p): nn.Parameter(_empty(p), p.requires_grad) for p in module.parameters()}
    buffers = {id(buffer): _empty(buffer) for buffer in module.buffers()}
    return copy.deepcopy(module, {**parameters, **buffers}).to(META)


@contextmanager
def without_values(remedy: str) -> Iterator[None]:
    """Inside a model or a local loss runs on the meta device. Raises ``SettingError`` where it can't, with what to do
    instead."""
    try:
        yield
    except RuntimeError as error:
        raise SettingError(
            f"the model or the local loss can't be run on tensors without values ({str(error).splitlines()[0]}); if it "
            f"looks at values, {remedy}"
        ) from error


def _empty(tensor: Tensor) -> Tensor:
    return torch.empty_like(tensor, device=META, requires_grad=False)


class Shapes(TorchDispatchMode):
    """Inside, batch norm on the meta device gives tensors of the right shapes at once. Torch itself takes thirty
    operators for that, which is most of the time that a convolutional network's shapes take."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return self.shapes(func, args, kwargs or {})

    def shapes(self, func: Any, args: Any, kwargs: Any) -> Any:
        """What an operator gives."""
        known = _SHAPES.get(func)
        return (known if known and args[0].is_meta else func)(*args, **kwargs)


def _batch_norm(x: Tensor, weight: Tensor | None, *rest: Any) -> tuple[Tensor, Tensor, Tensor]:
    """The output, and the mean and the deviation of each channel."""
    return torch.empty_like(x), x.new_empty(x.shape[1]), x.new_empty(x.shape[1])


def _batch_norm_backward(
    gradient: Tensor, x: Tensor, weight: Tensor | None, *rest: Any
) -> Sequence[Tensor | None]:
    """The gradients of input, weight and bias, as far as they are wanted."""
    like = (x, weight, weight)
    return [torch.empty_like(t) if wanted and t is not None else None for t, wanted in zip(like, rest[-1], strict=True)]


_SHAPES: dict[Any, Callable[..., Any]] = {
    torch.ops.aten.native_batch_norm.default: _batch_norm,
    torch.ops.aten.native_batch_norm_backward.default: _batch_norm_backward,
}
