"""The files of conf/: each composes and builds what it names; recipes fit what they are for; --help tells of all."""

import math

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf
from torch import nn

from trainer.assemble import augmentations, label_mixes, make_network
from trainer.building import build
from trainer.data.images import DataSpec
from trainer.main import CONFIGS
from trainer.partition.strategies import check_points
from trainer.settings import Settings
from trainer.update import UpdateOptions
from trainer.usage import COLUMN, PARTS, flat, shown, usage

LEAVE = {"partition": ("points", "blocks"), "dataset": ()}
RECIPES = sorted(path.stem for path in CONFIGS.glob("experiment/*.yaml"))
GROUPS = sorted(path.name for path in CONFIGS.iterdir() if path.is_dir() and path.name not in PARTS)
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
    shapes = []

    def told(find):
        """The shapes of the recipe's features, whatever the loss."""
        if not shapes:
            shapes.append(find())
        return shapes[0]

    # The networks for SVHN are those for CIFAR-10; weights of its own has only infopro.
    for loss in ["infopro"] if "svhn" in recipe else files("local_loss"):
        config = configured(f"experiment={recipe}", f"local_loss={loss}")
        size = IMAGES[recipe.split("_")[-2]]
        spec = DataSpec(5000, 8000, 10, (3, size, size), (0.5,) * 3, (0.5,) * 3)
        with torch.device("meta"):
            network = make_network(config, spec, told=told)
        cuts = check_points(config["partition"]["points"], network.names)
        assert [len(block) for block in network.split(cuts)] == BLOCKS[recipe.split("_")[0]]
        with torch.device("meta"):
            assert all(network.classifier(cut, cuts) for cut in cuts)
        assert UpdateOptions(**config["update"])


BLOCKS = {"resnet32": [4, 4, 4, 5], "resnet110": [13, 14, 14, 15], "vit": [4, 3, 3, 4]}
"""Units in each block: the stem stands in the first, the head in the last."""


CUTS = {"resnet32": ["layer1.2", "layer2.1", "layer3.0"], "resnet110": ["layer1.11", "layer2.7", "layer3.3"]}

PUBLISHED = {
    # experiment: batch, rate, InfoPro's reconstruction and label at the first and the last cut
    "resnet32_cifar10_k4": (1024, 0.8, [3, 0.5], [0, 1]),
    "resnet110_cifar10_k4": (1024, 0.8, [1, 0], [0, 1]),
    "resnet32_svhn_k4": (1024, 0.8, [5, 0.5], [0, 1]),
    "resnet110_svhn_k4": (1024, 0.8, [5, 0.5], [0, 1]),
    "resnet32_stl10_k4": (128, 0.1, [20, 5], [0.2, 2]),
    "resnet110_stl10_k4": (128, 0.1, [20, 5], [0.2, 2]),
}
"""arXiv 2101.10832 and its code; of ResNet-32 half of the weights on CIFAR-10, and on SVHN and STL-10 those of
ResNet-110."""


@pytest.mark.parametrize("experiment", PUBLISHED)
def test_the_recipe_is_the_published_one(experiment, configured):
    batch, rate, reconstruction, label = PUBLISHED[experiment]
    model, data, _ = experiment.split("_")
    config = configured(f"experiment={experiment}", "local_loss=infopro")
    optimizer, local_loss = config["optimizer"], config["local_loss"]
    assert (config["batch_size"], config["epochs"], config["partition"]["points"]) == (batch, 160, CUTS[model])
    assert (optimizer["lr"], optimizer["momentum"], optimizer["nesterov"]) == (rate, 0.9, True)
    assert optimizer["weight_decay"] == 1e-4
    assert (local_loss["reconstruction"], local_loss["label"]) == (reconstruction, label)
    schedule = build("scheduler", config["scheduler"])
    assert rate * schedule(0.0, 160) == pytest.approx(0.01, rel=0.01)
    # In the middle of an epoch as at its beginning: half way up the ramp, half way down the cosine, and at its end.
    half = (1 + math.cos(math.pi * 6 / 160)) / 2 * rate / 2 + 0.01 / 2
    assert rate * schedule(5.5, 160) == pytest.approx(half, rel=1e-6)
    assert schedule(79.5, 160) == pytest.approx(0.5)
    assert schedule(159.5, 160) == 0
    crop, *flip = config["dataset"]["augment"]
    assert (crop["padding"], crop["mode"], len(flip)) == {
        "cifar10": (4, "reflect", 1),
        "svhn": (2, "constant", 0),
        "stl10": (4, "constant", 1),
    }[data]
    published = {"cifar10": ([125.3, 123.0, 113.9], [63.0, 62.1, 66.7])}.get(data, ([127.5] * 3, [127.5] * 3))
    for key, wanted in zip(("mean", "std"), published, strict=True):
        assert [255 * value for value in config["dataset"][key]] == pytest.approx(wanted, abs=2e-3)


def test_another_optimizer_or_scheduler_takes_a_recipes_numbers_with_it(configured):
    other = configured("experiment=resnet32_cifar10_k4", "optimizer=adamw", "scheduler=step")
    assert other["optimizer"] == configured("optimizer=adamw")["optimizer"]
    assert other["scheduler"] == configured("scheduler=step")["scheduler"]


def test_a_recipes_weights_are_for_the_loss_they_are_named_after(configured):
    assert configured("local_loss=predsim")["local_loss"]["beta"] == 0.99
    assert "reconstruction" not in configured("experiment=resnet110_stl10_k4", "local_loss=dgl")["local_loss"]
    for path in CONFIGS.glob("weights/*.yaml"):
        loss, _, recipe = path.stem.partition("_")
        assert recipe in RECIPES and path.read_text().startswith("# @package local_loss\n# ")
        wanted = OmegaConf.to_container(OmegaConf.load(path))
        assert configured(f"experiment={recipe}", f"local_loss={loss}")["local_loss"].items() >= wanted.items(), path
    own = configured("experiment=resnet32_svhn_k4", "local_loss=infopro", "local_loss.label=[1,1]")["local_loss"]
    assert own["label"] == [1, 1] and own["reconstruction"] == [5, 0.5]


def test_every_recipe_has_weights_for_infopro():
    assert {f"infopro_{recipe}" for recipe in RECIPES} <= set(files("weights"))


def entries(text):
    """The names that a text of --help has, each with the word on it."""
    found, name = {}, None
    for line in text.splitlines():
        if line.startswith("    ") and line[4] != " ":
            name, *word = line.split(maxsplit=1)
            found[name] = " ".join(word)
        elif line.startswith(" " * COLUMN) and name:
            found[name] = f"{found[name]} {line.strip()}".strip()
    return found


def test_help_fits_the_terminal_and_follows_the_choices(command):
    plain = command("--help", environment=[("COLUMNS", "80")]).out
    chosen = command("--help", "local_loss=man", "model.depth=14", environment=[("COLUMNS", "100")]).out
    assert max(map(len, plain.splitlines())) <= 80 < max(map(len, chosen.splitlines())) <= 100
    assert "checkpoint.every_epochs=1" in entries(plain) and "log.every_steps=10" in entries(plain)
    assert entries(chosen)["model.depth=14"] == "6 n + 2"
    assert entries(chosen)["local_loss.base.hidden_layers=3"] == "layers of the perceptron"
    assert "local_loss@local_loss.base=infopro" in chosen  # the whole comment of what is chosen


@pytest.mark.parametrize("group", GROUPS)
def test_every_file_composes_and_help_has_a_word_on_all_its_options(group):
    for name in files(group):
        ConfigStore.instance().store("schema", Settings)
        GlobalHydra.instance().clear()
        with initialize_config_dir(str(CONFIGS.resolve()), version_base="1.3"):
            composed = compose("config", [f"{group}={name}"], return_hydra_config=True)
        config = {key: OmegaConf.to_container(composed, resolve=False)[key] for key in composed if key != "hydra"}
        listed = entries(usage(CONFIGS, config, composed.hydra.runtime.choices))
        assert [entry for entry, word in listed.items() if not word] == [], name
        assert name in listed
        options = {key.partition("=")[0] for key in listed}
        assert {key for key, _ in flat(config) if not key.endswith("_target_")} <= options, name


def test_values_are_shown_as_the_command_line_takes_them():
    assert [shown(value) for value in (None, True, 0.5, "auto", [1, None], [{"a": 1}], [])] == [
        "null", "true", "0.5", "auto", "[1,null]", "[...]", "[]",
    ]  # fmt: skip
