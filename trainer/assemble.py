"""Putting the parts of a run together from its settings; shared by training and by everything that reads a run back."""

from collections.abc import Mapping
from typing import Any

from trainer.data.augment import Augmentation
from trainer.data.images import DataSpec, Dataset, Images
from trainer.errors import SettingError
from trainer.network import Network
from trainer.settings import build
from trainer.units import build_model

DATA_KEYS = ("image_size", "root", "download", "mean", "std", "augment")
"""Settings of the group ``dataset`` that are not the dataset class's own, unless its constructor asks for them."""


def load_images(dataset: Mapping[str, Any], trust: bool = True) -> Images:
    """The images of the group ``dataset``, resized."""
    size = dataset.get("image_size")
    if size is not None and size < 1:
        raise SettingError(f"dataset.image_size={size} must be at least 1")
    loader: Dataset = build("dataset", dataset, leave=DATA_KEYS, trust=trust)
    return loader.load().resized(size)


def data_spec(dataset: Mapping[str, Any], images: Images) -> DataSpec:
    """The facts about the images that other ranks need."""
    return images.spec(dataset.get("mean"), dataset.get("std"))


def augmentations(dataset: Mapping[str, Any], trust: bool = True) -> list[Augmentation]:
    """The augmentations of the training images, in order."""
    return [build(f"dataset.augment[{i}]", node, trust=trust) for i, node in enumerate(dataset.get("augment") or [])]


def make_network(config: Mapping[str, Any], spec: DataSpec, trust: bool = True) -> Network:
    """The network of a configuration: model and local loss."""
    offer = {"num_classes": spec.num_classes, "image_shape": spec.image_shape}
    model = build_model(lambda: build("model", config["model"], trust=trust, offer=offer), config["seed"])
    local_loss = build("local_loss", config["local_loss"], trust=trust)
    return Network.of(model, spec, local_loss, config["seed"])
