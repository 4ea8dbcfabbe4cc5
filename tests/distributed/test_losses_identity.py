"""Every local loss, pipelined over four ranks or two, gives bit for bit what it gives in one process.

Cases are jobs of a sweep, so that ranks are started once: ``experiment`` files made here say what a case is.
"""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.distributed.conftest import Job
from trainer.main import CONFIGS

LOSSES: dict[str, dict[str, Any]] = {
    "greedy": {},
    "dgl": {},
    "predsim": {},
    "infopro": {},
    "auglocal": {},
    "deinforeg": {"local_loss": {"width": 32}},
    "overlap": {},
    "man": {"local_loss": {"momentum": 0.9}},
}
"""Every file of conf/local_loss/, and what is set otherwise."""

MODELS = ("resnet32", "vit_tiny")
"""The models, as their files have them, that every local loss trains."""

SMALL = {"resnet32": {"depth": 14}, "vit_tiny": {"depth": 6, "width": 48}}
"""Smaller ones, for the options of the losses."""

OPTIONS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "contrast": ("infopro", "vit_tiny", {"local_loss": {"contrast": True}}),
    "input_of_maps_bf16": ("infopro", "resnet32", {"precision": "bf16", "local_loss": {"reconstruct": "input"}}),
    "input_of_tokens": ("infopro", "vit_tiny", {"local_loss": {"reconstruct": "input"}}),
    "lag1": ("overlap", "resnet32", {"local_loss": {"lag": 1}}),
    "every2": ("overlap", "vit_tiny", {"local_loss": {"every": 2, "lag": 3}}),
    "average_bf16": ("man", "vit_tiny", {"precision": "bf16", "local_loss": {"lag": 2}}),
    "average_on_infopro": ("man", "resnet32", {"base": "infopro", "local_loss": {"lag": 2, "learn_scale": True}}),
}
"""A loss, a small model, and what is set; these runs also go from one epoch to the next."""

CASES = {4: [f"{loss}_{model}" for loss in LOSSES for model in MODELS], 2: [*OPTIONS]}
"""By the number of ranks; two ranks have two blocks each."""

STEPS = 6

COMMON = [
    "dataset=synthetic", "dataset.image_size=16", "dataset.test_size=6", "partition=even", "partition.blocks=4",
    "batch_size=4", "checkpoint.every_epochs=null", "tracker=none", "threads=1", "log.every_steps=1",
    "device=cpu",
]  # fmt: skip


def write_cases(folder: Path) -> None:
    """An ``experiment`` file for every case."""
    for loss, settings in LOSSES.items():
        for model in MODELS:
            write_case(folder / f"{loss}_{model}.yaml", loss, model, settings, epochs=1)
    for name, (loss, model, settings) in OPTIONS.items():
        write_case(folder / f"{name}.yaml", loss, model, {**settings, "model": SMALL[model]}, epochs=2)


def write_case(path: Path, loss: str, model: str, settings: dict[str, Any], epochs: int) -> None:
    """One ``experiment`` file."""
    overrides = [{"override /local_loss": loss}, {"override /model": model}]
    content = {"defaults": overrides, "epochs": epochs, "dataset": {"train_size": 4 * STEPS // epochs}, **settings}
    if base := content.pop("base", None):
        overrides.append({"override /local_loss@local_loss.base": base})
    path.write_text(f"# @package _global_\n{json.dumps(content)}\n")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, forked: Job, forked_alone: Job) -> Path:
    """The run directories ``<ranks>/<n>`` and ``sequential<ranks>/<n>`` of case number n of so many ranks."""
    folder = tmp_path_factory.mktemp("losses")
    (folder / "experiment").mkdir()
    write_cases(folder / "experiment")
    for ranks, cases in CASES.items():
        sweep = ["--multirun", *COMMON, f"experiment={','.join(cases)}", f"hydra.searchpath=[file://{folder}]"]
        for done in (
            forked(ranks, folder, *sweep, f"hydra.sweep.dir={ranks}"),
            forked_alone(folder, *sweep, "engine=sequential", f"hydra.sweep.dir=sequential{ranks}"),
        ):
            assert done.status == 0, done.out[-2000:] + done.err[-4000:]
    return folder


def epochs(run: Path) -> list[dict[str, object]]:
    """What a run's epochs measured, without times."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{key: line[key] for key in ("step", "train", "test")} for line in lines if line["kind"] == "epoch"]


def test_every_local_loss_is_among_the_cases() -> None:
    assert LOSSES.keys() == {path.stem for path in (CONFIGS / "local_loss").glob("*.yaml")}


@pytest.mark.parametrize("ranks, number, case", [(n, *case) for n in CASES for case in enumerate(CASES[n])])
def test_ranks_are_bit_equal_to_one_process(runs: Path, ranks: int, number: int, case: str) -> None:
    several, one = runs / str(ranks) / str(number), runs / f"sequential{ranks}" / str(number)
    found, wanted = (load_file(run / "model.safetensors") for run in (several, one))
    assert found.keys() == wanted.keys()
    assert [name for name in wanted if not torch.equal(found[name], wanted[name])] == []
    # Losses and accuracies of every block, early exits included.
    measured = epochs(several)
    assert measured == epochs(one) and measured[-1]["step"] == STEPS
