"""Overlap and MAN: what the copies of the next unit are at each step, and what is made of them."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from safetensors.torch import load_file
from torch import nn

import trainer
from trainer.assemble import data_spec, load_images, make_network
from trainer.blocks import make_block
from trainer.errors import SettingError
from trainer.local_losses.base import ModelOutput
from trainer.local_losses.dgl import DGL
from trainer.local_losses.following import Follower
from trainer.local_losses.greedy import Greedy
from trainer.local_losses.infopro import InfoPro
from trainer.local_losses.man import MAN
from trainer.local_losses.overlap import Overlap
from trainer.launch import Launch
from trainer.rank import Rank
from trainer.run import Run
from trainer.rundir import RunDirectory
from trainer.training import train

TINY = (
    "dataset=synthetic", "dataset.image_size=8", "dataset.train_size=32", "dataset.test_size=4", "batch_size=4",
    "epochs=1", "partition.points=[layer1.0,layer2.0]", "model.depth=8", "model.width=8", "tracker=none",
    "engine=sequential", "threads=1", "device=cpu",
)  # fmt: skip


@pytest.mark.parametrize("method", [Overlap(DGL()), MAN(Greedy()), MAN(InfoPro([6, 1], [0, 2]), learn_scale=True)])
def test_it_learns_maps_tokens_and_vectors(check_loss, method):
    check_loss(method)


def test_it_asks_for_what_its_base_asks_for():
    assert Overlap(DGL()).fields == () and Overlap(InfoPro([1, 1], [1, 1])).fields == ("image",)
    assert (MAN(DGL(), 2, 3).refresh.every, MAN(DGL(), 2, 3).refresh.lag) == (2, 3)


def test_overlap_judges_what_the_next_unit_makes_of_the_features(site, packet):
    place, given, features = site((6, 4, 4)), packet(), torch.randn(8, 6, 4, 4)
    classifier = Overlap(Greedy()).classifier(place)
    assert isinstance(classifier, Follower)
    expected = classifier.base.compute_loss(place.later[0].module(features), given)
    torch.testing.assert_close(classifier.compute_loss(features, given).loss, expected.loss)


def test_man_adds_a_learning_and_a_following_copy(site):
    place, features = site((6, 4, 4)), torch.randn(8, 6, 4, 4)
    classifier = MAN(Greedy(), learn_scale=True).classifier(place)
    nn.init.constant_(classifier.scale, 1.5)
    nn.init.zeros_(classifier.next[0].weight)
    learned, following = place.later[0].module(features), classifier.next(features)
    torch.testing.assert_close(classifier.beyond(features), 1.5 * learned + 0.5 * following)
    assert classifier.learned[0].weight.requires_grad and classifier.scale.requires_grad
    assert not MAN(Greedy()).classifier(place).scale.requires_grad


def test_a_refresh_of_an_exact_copy_and_of_an_average(site):
    place = site((6, 4, 4))
    weights = {name: torch.full_like(value, 3) for name, value in place.later[0].module.state_dict().items()}
    exact, average = (method.classifier(place) for method in (Overlap(Greedy()), MAN(Greedy(), every=2, momentum=0.5)))
    for classifier in (exact, average):
        nn.init.ones_(classifier.next[0].weight)
        classifier.next[1].running_mean.fill_(1.0)
        classifier.follow(weights)
    assert all((value == 3).all() for value in exact.next.state_dict().values())
    # Half of the average outlasts a step, a quarter the two steps between refreshes: 1/4 + 3 * 3/4.
    assert (average.next[0].weight == 2.5).all() and (average.next[1].running_mean == 2.5).all()
    assert average.next[1].num_batches_tracked == 3


def test_the_head_of_the_model_is_judged_by_its_own_logits(site):
    place = site((6, 4, 4))
    classifier = Overlap(DGL()).classifier(replace(place, later=place.later[1:]))
    assert isinstance(classifier.base, ModelOutput)
    assert classifier(torch.randn(2, 6, 4, 4)).shape == (2, 4)


def test_the_copy_is_saved_but_not_trained(network):
    network.local_loss = MAN(Greedy())
    block = make_block(network, ["layer1.0"], 0, 4, torch.device("cpu"), torch.float32)
    copies = {name for name in block.state() if name.startswith("local_classifiers.layer1.0.next.")}
    assert "local_classifiers.layer1.0.next.first.norm.running_mean" in copies
    assert not copies & block.parameters().keys()
    assert any(name.startswith("local_classifiers.layer1.0.learned.") for name in block.parameters())


def test_a_copy_is_read_under_the_name_that_the_unit_has_in_the_model(site):
    place = site((6, 4, 4))
    place.later[0].module.parameter_prefix = "encoder.next"
    copied = MAN(Greedy()).classifier(place).copied_units()
    assert copied["next.0.weight"] == copied["learned.0.weight"] == "encoder.next.0.weight"


def test_what_learns_nothing_is_not_followed(site):
    place = site((6, 4, 4))
    later = (replace(place.later[0], name="relu", module=nn.ReLU()), *place.later[1:])
    with pytest.raises(SettingError, match="ends with unit cut can't follow unit relu, which has no parameters"):
        Overlap(Greedy()).classifier(replace(place, later=later))


def trained(configured: Any, path: Path, steps: int, *overrides: str) -> dict[str, torch.Tensor]:
    """The weights after so many steps of training in one process."""
    config = configured(*TINY, f"max_steps={steps}", *overrides)
    run = Run(config, Rank.join(Launch(environment={}), 0, "cpu", 1, 60.0))
    directory = path / f"{steps}"
    train(run, RunDirectory.create(str(directory), ""), OmegaConf.to_yaml(OmegaConf.create(config)))
    return load_file(directory / "model.safetensors")


def weights_of(state: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}


def initial(configured: Any, prefix: str) -> dict[str, torch.Tensor]:
    """A unit's state before training."""
    config = configured(*TINY)
    network = make_network(config, data_spec(config["dataset"], load_images(config["dataset"])))
    return network.units[prefix.rstrip(".")].state_dict()


@pytest.mark.parametrize("every, lag, source", [(1, 4, 2), (1, 1, 5), (2, 3, 2), (4, 2, 4), (3, 4, 0), (1, 7, 0)])
def test_the_copy_is_the_neighbors_unit_after_its_last_refresh_step(configured, tmp_path, every, lag, source):
    overrides = ["local_loss=overlap", f"local_loss.every={every}", f"local_loss.lag={lag}"]
    after_6 = trained(configured, tmp_path, 6, *overrides)
    after_source = trained(configured, tmp_path, source, *overrides) if source else None
    for cut, following in (("layer1.0", "layer2.0."), ("layer2.0", "layer3.0.")):
        copied = weights_of(after_6, f"local_classifiers.{cut}.next.")
        wanted = weights_of(after_source, following) if after_source else initial(configured, following)
        assert copied.keys() == wanted.keys()
        # A batch norm counts its own forwards as well, which nothing depends on.
        names = [name for name in wanted if not name.endswith("num_batches_tracked")]
        assert names and all(torch.equal(copied[name], wanted[name]) for name in names)


@pytest.mark.parametrize("loss", ["overlap", "man"])
def test_a_loaded_network_has_the_early_exits_that_were_tested(configured, tmp_path, loss):
    trained(configured, tmp_path, 8, f"local_loss={loss}", "local_loss.lag=1", "dataset.test_size=64")
    images = load_images(configured(*TINY, "dataset.test_size=64")["dataset"]).test
    network = trainer.load(tmp_path / "8")
    with torch.no_grad():
        exits = network.exits(network.spec.normalize(images.images))
    found = [(logits.argmax(1) == images.labels).float().mean().item() for logits in exits]
    records = [json.loads(line) for line in (tmp_path / "8/metrics.jsonl").read_text().splitlines()]
    epoch = next(record for record in records if record["kind"] == "epoch")
    assert found == pytest.approx([block["accuracy"] for block in epoch["test"]["blocks"]], abs=1e-3)


def test_the_average_is_folded_step_by_step(configured, tmp_path):
    overrides = ["local_loss=man", "local_loss.momentum=0.75", "local_loss.lag=2"]
    found, *sources = (trained(configured, tmp_path, steps, *overrides) for steps in (4, 1, 2))
    for cut, following in (("layer1.0", "layer2.0."), ("layer2.0", "layer3.0.")):
        average = initial(configured, following)["first.conv.weight"]
        for source in sources:
            average = 0.75 * average + 0.25 * weights_of(source, following)["first.conv.weight"]
        torch.testing.assert_close(found[f"local_classifiers.{cut}.next.first.conv.weight"], average)


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: Overlap(DGL(), lag=0), "local_loss.lag=0 must be at least 1"),
        (lambda: MAN(DGL(), every=0), "local_loss.every=0 must be at least 1"),
        (lambda: MAN(DGL(), momentum=1.0), "local_loss.momentum=1.0 must be at least 0 and below 1"),
        (lambda: Overlap(MAN(DGL())), "local_loss.base=MAN follows the next block itself; choose a base that does not"),
    ],
)
def test_wrong_settings(make, message):
    with pytest.raises(SettingError, match=message):
        make()
