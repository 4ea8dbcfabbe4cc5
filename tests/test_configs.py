"""The files of conf/: each composes and builds what it names; recipes fit what they are for; --help tells of all."""

import subprocess
import sys

import pytest
import torch
from torch import nn

from trainer.assemble import augmentations, label_mixes, make_network
from trainer.data.images import DataSpec
from trainer.main import CONFIGS
from trainer.partition.strategies import check_points
from trainer.settings import build
from trainer.update import UpdateOptions

LEAVE = {"partition": ("points", "blocks"), "dataset": ()}
RECIPES = sorted(path.stem for path in CONFIGS.glob("experiment/*.yaml"))
IMAGES = {"cifar10": 32, "svhn": 32, "stl10": 96}


def files(group):
    return sorted(path.stem for path in CONFIGS.glob(f"{group}/*.yaml"))


@pytest.mark.parametrize("group", ["engine", "local_loss", "partition", "scheduler", "tracker"])
def test_every_file_builds_what_it_names(group, configured):
    for name in files(group):
        assert build(
            group, configured(f"{group}={name}")[group], leave=LEAVE.get(group, ()), offer={"batch_size": 8}
        ), name


def test_every_optimizer_steps(configured):
    for name in files("optimizer"):
        weight = nn.Parameter(torch.ones(2, 2))
        optimizer = build("optimizer", configured(f"optimizer={name}")["optimizer"], offer={"params": [weight]})
        weight.grad = torch.ones(2, 2)
        optimizer.step()
        assert (weight < 1).all(), name


def test_every_model_builds(configured):
    offer = {"num_classes": 10, "image_shape": (3, 32, 32)}
    for name in files("model"):
        node = configured(f"model={name}")["model"]
        with torch.device("cpu" if name == "torchvision" else "meta"):
            assert isinstance(build("model", node, offer=offer), nn.Sequential), name


def test_every_dataset_builds_with_every_option(configured, tmp_path):
    options = ("dataset.mixup=0.1", "dataset.cutmix=0.1", "dataset.label_smoothing=0.1", "dataset.rand_augment=1")
    for name in files("dataset"):
        set_root = {"npz": ["dataset.path=x.npz"], "image_folder": [f"dataset.root={tmp_path}"]}.get(name, [])
        node = configured(f"dataset={name}", *options, *set_root)["dataset"]
        leave = ("image_size", "mean", "std", "augment", "validation", "rand_augment", "random_erasing")
        assert build("dataset", node, leave=(*leave, "mixup", "cutmix", "label_smoothing")), name
        assert len(label_mixes(node)) == 2 and augmentations(node), name


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_fits_its_network_for_every_local_loss(recipe, configured):
    for loss in files("local_loss"):
        config = configured(f"experiment={recipe}", f"local_loss={loss}")
        size = IMAGES[recipe.split("_")[-2]]
        spec = DataSpec(5000, 8000, 10, (3, size, size), (0.5,) * 3, (0.5,) * 3)
        with torch.device("meta"):
            network = make_network(config, spec)
        cuts = check_points(config["partition"]["points"], network.names)
        assert [len(block) for block in network.split(cuts)] == BLOCKS[recipe.split("_")[0]]
        with torch.device("meta"):
            assert all(network.classifier(cut, cuts) for cut in cuts)
        assert UpdateOptions(**config["update"])


BLOCKS = {"resnet32": [4, 4, 4, 5], "resnet110": [13, 14, 14, 15], "vit": [4, 3, 3, 4]}
"""Units in each block: the stem stands in the first, the head in the last."""


@pytest.mark.parametrize("data, batch, rate", [("cifar10", 1024, 0.8), ("svhn", 1024, 0.8), ("stl10", 128, 0.1)])
def test_the_recipe_is_the_published_one(data, batch, rate, configured):
    config = configured(f"experiment=resnet32_{data}_k4")
    optimizer, scheduler = config["optimizer"], config["scheduler"]
    assert (config["batch_size"], config["epochs"]) == (batch, 160)
    assert (optimizer["lr"], optimizer["momentum"], optimizer["nesterov"]) == (rate, 0.9, True)
    assert optimizer["weight_decay"] == 1e-4
    schedule = build("scheduler", scheduler)
    assert rate * schedule(0.0, 160) == pytest.approx(0.01)
    crop, *flip = config["dataset"]["augment"]
    assert (crop["padding"], crop["mode"], len(flip)) == {
        "cifar10": (4, "reflect", 1),
        "svhn": (2, "constant", 0),
        "stl10": (4, "constant", 1),
    }[data]


def test_a_recipes_weights_are_for_the_loss_they_are_named_after(configured):
    assert "reconstruction" not in configured("experiment=resnet110_stl10_k4", "local_loss=dgl")["local_loss"]
    for path in CONFIGS.glob("weights/*.yaml"):
        loss, _, recipe = path.stem.partition("_")
        assert recipe in RECIPES and path.read_text().startswith("# @package local_loss\n# ")
        if loss in files("local_loss"):
            assert configured(f"experiment={recipe}", f"local_loss={loss}")["local_loss"]["reconstruction"], path


def test_help_has_a_word_on_every_group_file_and_option(configured):
    shown = subprocess.run(
        [sys.executable, "-m", "trainer.main", "--help"], capture_output=True, text=True, check=True
    ).stdout
    entries = {
        line.split()[0]: line.split()[1:] for line in shown.splitlines() if line.startswith("    ") and line[4] != " "
    }
    config = configured()
    groups = [
        folder.name for folder in CONFIGS.iterdir() if folder.is_dir() and folder.name not in ("images", "weights")
    ]
    for group in groups:
        for name in files(group):
            assert entries[name], (group, name)
    for key in config:
        if key not in groups and not isinstance(config[key], dict):
            assert any(entry.startswith(f"{key}=") and words for entry, words in entries.items()), key
    for section in ("update", "log", "eval"):
        for key in config[section]:
            assert any(entry.startswith(f"{section}.{key}=") for entry in entries), key
