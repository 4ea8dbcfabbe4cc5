"""Any classification model of torchvision, by its name there."""

import fcntl
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

from torch import nn

from trainer.errors import SettingError
from trainer.models.cut import cut_up


def torchvision_model(
    name: str | None,
    num_classes: int,
    weights: str | None = None,
    options: dict[str, Any] | None = None,
    fetch: bool = True,
) -> nn.Sequential:
    """Build a model of ``torchvision.models`` and cut it wherever a single tensor passes.

    Swin transformers hand on ``(N, H, W, C)``, which local classifiers take for maps of H channels: that trains, but
    the early exits are worse than they could be.

    Args:
        name: what torchvision calls it, ``efficientnet_b0``.
        num_classes: size of the logits, ``(N, num_classes)``.
        weights: None for new weights; ``DEFAULT`` or the name of a set of torchvision's, ``IMAGENET1K_V1``, for trained
            ones, with a new last layer where the number of classes is another.
        options: further arguments of the model's builder.
        fetch: False leaves initial weights where trained ones are named, in the same model otherwise.

    Raises:
        SettingError: there is no such model or set of weights, the weights can't be had, or the model can't be cut.
    """
    from torchvision import models

    known = models.list_models(module=models)
    if name is None or name not in known:
        raise SettingError(
            f"model.name={name} is no classification model of torchvision; it has {', '.join(sorted(known))}"
        )
    options = options or {}
    if weights is None:
        model = _built(name, {"num_classes": num_classes, **options})
    elif fetch:
        model = _pretrained(name, _weights(name, weights), num_classes, options)
    else:
        model = _untrained(name, _weights(name, weights), num_classes, options)
    _drop_auxiliary(model)
    return cut_up(model, f"model.name={name}")


def _built(name: str, arguments: dict[str, Any]) -> nn.Module:
    from torchvision import models

    try:
        with warnings.catch_warnings():  # of how GoogLeNet and Inception will be initialized in a later torchvision
            warnings.simplefilter("ignore", FutureWarning)
            model: nn.Module = models.get_model(name, **arguments)
    except (TypeError, AssertionError) as error:
        raise SettingError(f"model.options do not fit torchvision's {name}: {error}") from error
    return model


def _weights(name: str, weights: str) -> Any:
    """The set of weights that is called so."""
    from torchvision import models

    offered = models.get_model_weights(name)
    if weights not in (*offered.__members__, "DEFAULT"):
        raise SettingError(
            f"model.weights={weights} is unknown for {name}; it is null, DEFAULT or one of "
            f"{', '.join(member for member in offered.__members__ if member != 'DEFAULT')}"
        )
    return offered[weights]


def _pretrained(name: str, weights: Any, num_classes: int, options: dict[str, Any]) -> nn.Module:
    """A model with trained weights, its last layer a new one where the classes are others."""
    import torch

    folder, file = Path(torch.hub.get_dir()) / "checkpoints", weights.url.rsplit("/", 1)[-1]
    try:
        with nullcontext() if (folder / file).exists() else _alone_in(folder):
            model = _built(name, {"weights": weights, "progress": False, **options})
    except (OSError, RuntimeError) as error:  # no network, or a file with another checksum
        raise SettingError(
            f"model.weights={weights.name} of {name} can't be had ({error}); put {weights.url} into {folder} as "
            f"{file}, or set model.weights=null"
        ) from error
    if num_classes != len(weights.meta["categories"]):
        _replace_last_layer(model, num_classes)
    return model


def _untrained(name: str, weights: Any, num_classes: int, options: dict[str, Any]) -> nn.Module:
    """The same model with initial weights, but as torchvision changes it for trained ones."""
    if name.startswith("vit_"):
        options = {"image_size": weights.meta["min_size"][0], **options}
    model = _built(name, {"num_classes": num_classes, **options})
    if hasattr(model, "transform_input"):
        model.transform_input = options.get("transform_input", True)
    return model


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Inside is one process at a time of those that share ``folder``: the first downloads, the others find the file."""
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # a file system that knows no locks
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _replace_last_layer(model: nn.Module, num_classes: int) -> None:
    """Put a new layer in place of the last linear layer or 1x1 convolution."""
    path, last = [item for item in model.named_modules() if isinstance(item[1], nn.Linear | nn.Conv2d)][-1]
    parent, _, attribute = path.rpartition(".")
    new: nn.Module
    if isinstance(last, nn.Linear):
        new = nn.Linear(last.in_features, num_classes, last.bias is not None)
    else:
        new = nn.Conv2d(last.in_channels, num_classes, last.kernel_size, bias=last.bias is not None)
    setattr(model.get_submodule(parent), attribute, new)


def _drop_auxiliary(model: nn.Module) -> None:
    """Leave out the auxiliary heads of GoogLeNet and Inception: local classifiers do their work here."""
    if getattr(model, "aux_logits", False):
        model.aux_logits = False  # type: ignore[assignment]
        for name, _ in list(model.named_children()):
            if name.lower().startswith("aux"):
                setattr(model, name, None)
