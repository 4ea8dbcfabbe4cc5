"""Every local loss, pipelined over four ranks or two, gives bit for bit what it gives in one process."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.conftest import Compose
from tests.distributed import train_configs
from tests.distributed.conftest import Job
from trainer.main import CONFIGS

LOSSES = {
    "greedy": [],
    "dgl": [],
    "predsim": [],
    "infopro": [],
    "auglocal": [],
    "deinforeg": ["local_loss.width=32"],
    "overlap": [],
    "man": ["local_loss.momentum=0.9"],
}
"""Every file of conf/local_loss/, and what is set otherwise."""

MODELS = {
    "resnet32": "partition.points=[layer1.3,layer2.2,layer3.1]",
    "vit_tiny": "partition.points=[encoder.2,encoder.5,encoder.8]",
}
"""The models, as their files have them, that every local loss trains, and how they are cut."""

SMALL = {
    "resnet32": ["model.depth=14", "partition.points=[layer1.0,layer2.0,layer3.0]"],
    "vit_tiny": ["model.depth=6", "model.width=48", "partition.points=[encoder.0,encoder.2,encoder.4]"],
}
"""Smaller ones, for the options of the losses."""

OPTIONS = {
    "contrast": ("infopro", "vit_tiny", ["local_loss.contrast=true"]),
    "input_of_maps_bf16": ("infopro", "resnet32", ["precision=bf16", "local_loss.reconstruct=input"]),
    "input_of_tokens": ("infopro", "vit_tiny", ["local_loss.reconstruct=input"]),
    "lag1": ("overlap", "resnet32", ["local_loss.lag=1"]),
    "every2": ("overlap", "vit_tiny", ["local_loss.every=2", "local_loss.lag=3"]),
    "average_bf16": ("man", "vit_tiny", ["precision=bf16", "local_loss.lag=2"]),
    "average_on_infopro": (
        "man", "resnet32", ["local_loss@local_loss.base=infopro", "local_loss.lag=2", "local_loss.learn_scale=true"]
    ),
}  # fmt: skip
"""A loss, a small model, and what is set; these runs also go from one epoch to the next."""

STEPS = 6

COMMON = (
    "dataset=synthetic", "dataset.image_size=16", "dataset.test_size=6", "partition=profiled", "partition.repeats=1",
    "batch_size=4", "checkpoint.every_epochs=null", "tracker=none", "threads=1", "log.every_steps=1",
    "device=cpu",
)  # fmt: skip
"""To measure such small steps takes less time than to count what they cost."""


def case(loss: str, model: str, epochs: int, *settings: str) -> tuple[str, ...]:
    """The command line of a case."""
    steps = (f"epochs={epochs}", f"dataset.train_size={4 * STEPS // epochs}")
    return (*COMMON, f"local_loss={loss}", f"model={model}", *steps, *settings)


CASES = {
    4: {
        f"{loss}_{model}": case(loss, model, 1, cuts, *options)
        for loss, options in LOSSES.items()
        for model, cuts in MODELS.items()
    },
    2: {name: case(loss, model, 2, *SMALL[model], *options) for name, (loss, model, options) in OPTIONS.items()},
}
"""By the number of ranks; two ranks have two blocks each."""


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, configured: Compose, forked: Job, forked_alone: Job) -> Path:
    """The run directories ``<ranks>/<case>`` and ``1/<case>``."""
    folder = tmp_path_factory.mktemp("losses")
    sequential = {"engine": configured("engine=sequential")["engine"]}
    alone, jobs = {}, []
    for ranks, cases in CASES.items():
        configs = {name: configured(*overrides) for name, overrides in cases.items()}
        alone |= {name: {**config, **sequential} for name, config in configs.items()}
        listed = train_configs.listed(folder / str(ranks), configs)
        jobs.append(forked(ranks, folder, listed, program=train_configs.__file__))
    jobs.append(forked_alone(folder, train_configs.listed(folder / "1", alone), program=train_configs.main))
    for done in jobs:
        assert done.status == 0, done.out[-2000:] + done.err[-4000:]
    return folder


def epochs(run: Path) -> list[dict[str, object]]:
    """What a run's epochs measured, without times."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{key: line[key] for key in ("step", "train", "test")} for line in lines if line["kind"] == "epoch"]


def test_every_local_loss_is_among_the_cases() -> None:
    assert LOSSES.keys() == {path.stem for path in (CONFIGS / "local_loss").glob("*.yaml")}


@pytest.mark.parametrize("ranks, name", [(ranks, name) for ranks in CASES for name in CASES[ranks]])
def test_ranks_are_bit_equal_to_one_process(runs: Path, ranks: int, name: str) -> None:
    several, one = runs / str(ranks) / name, runs / "1" / name
    found, wanted = (load_file(run / "model.safetensors") for run in (several, one))
    assert found.keys() == wanted.keys()
    assert [key for key in wanted if not torch.equal(found[key], wanted[key])] == []
    # Losses and accuracies of every block, early exits included.
    measured = epochs(several)
    assert measured == epochs(one) and measured[-1]["step"] == STEPS
