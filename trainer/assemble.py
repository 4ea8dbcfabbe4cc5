"""Putting the parts of a run together from its settings; shared by training and by everything that reads a run back."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from trainer.building import build
from trainer.data.augment import Augmentation, RandAugment, RandomErasing
from trainer.data.images import DataSpec, Dataset, Pictures
from trainer.data.mix import Mix, mixes
from trainer.errors import at_least, check_share
from trainer.network import Network, Telling, find_alone
from trainer.units import build_model

MIX_KEYS = ("mixup", "cutmix", "label_smoothing")

DATA_KEYS: dict[str, Any] = {
    "image_size": int | None,
    "mean": list[float] | None,
    "std": list[float] | None,
    "augment": list[Any] | None,
    "validation": int | None,
    "rand_augment": int | None,
    "random_erasing": float | None,
    **dict.fromkeys(MIX_KEYS, float | None),
}
"""Settings of the group ``dataset`` that are not the dataset class's own, unless its constructor asks for them, and
their types."""


def load_images(dataset: Mapping[str, Any], trust: bool = True) -> Pictures:
    """The images of the group ``dataset``, resized, with validation images for test images where so many are set."""
    size = dataset.get("image_size")
    at_least(1, {"dataset.image_size": size})
    loader: Dataset = build("dataset", dataset, leave=DATA_KEYS, trust=trust)
    images = loader.load().resized(size)
    held_out = dataset.get("validation") or 0
    return images.held_out(held_out) if held_out else images


def data_spec(dataset: Mapping[str, Any], images: Pictures) -> DataSpec:
    """The facts about the images that other ranks need."""
    spec = images.spec(dataset.get("mean"), dataset.get("std"))
    return replace(spec, soft_labels=bool(label_mixes(dataset)))


def augmentations(dataset: Mapping[str, Any], trust: bool = True) -> list[Augmentation]:
    """The augmentations of the training images, in order."""
    at_least(0, {"dataset.rand_augment": dataset.get("rand_augment")})
    check_share("dataset.random_erasing", dataset.get("random_erasing") or 0)
    nodes = enumerate(dataset.get("augment") or [])
    wanted: list[Augmentation] = [build(f"dataset.augment[{i}]", node, trust=trust) for i, node in nodes]
    if dataset.get("rand_augment"):
        wanted.append(RandAugment(dataset["rand_augment"]))
    if dataset.get("random_erasing"):
        wanted.append(RandomErasing(dataset["random_erasing"]))
    return wanted


def label_mixes(dataset: Mapping[str, Any]) -> list[Mix]:
    """What changes images and labels of the training together, in order."""
    return mixes(*(dataset.get(key) or 0.0 for key in MIX_KEYS))


def make_network(
    config: Mapping[str, Any], spec: DataSpec, trust: bool = True, fetch: bool = True, told: Telling = find_alone
) -> Network:
    """The network of a configuration: model and local loss. Without ``fetch`` no trained weights are sought for it:
    others will take their place. Of several ranks, ``told`` lets one find the shapes."""
    offer = {"num_classes": spec.num_classes, "image_shape": spec.image_shape, "fetch": fetch}
    model = build_model(lambda: build("model", config["model"], trust=trust, offer=offer), config["seed"])
    local_loss = build("local_loss", config["local_loss"], trust=trust)
    return Network.of(model, spec, local_loss, config["seed"], told)
