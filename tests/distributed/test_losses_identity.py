"""Every local loss, pipelined over four ranks, gives bit for bit what it gives in one process.

All cases are jobs of one sweep, so four ranks are started once: ``experiment`` files made here say what a case is.
"""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.distributed.conftest import Job
from trainer.main import CONFIGS

LOSSES = {
    "greedy": {"local_loss": "greedy"},
    "dgl": {"local_loss": "dgl"},
    "predsim": {"local_loss": "predsim"},
    "infopro": {"local_loss": "infopro"},
    "infopro_contrast": {"local_loss": "infopro", "set": {"contrast": True}},
    "infopro_input": {"local_loss": "infopro", "set": {"reconstruct": "input"}},
    "infopro_bf16": {"local_loss": "infopro", "precision": "bf16"},
    "auglocal": {"local_loss": "auglocal"},
    "deinforeg": {"local_loss": "deinforeg", "set": {"width": 32}},
    "overlap": {"local_loss": "overlap"},
    "overlap_lag1": {"local_loss": "overlap", "set": {"lag": 1}},
    "overlap_every2": {"local_loss": "overlap", "set": {"every": 2, "lag": 3}},
    "man": {"local_loss": "man", "set": {"momentum": 0.9, "lag": 2}},
    "man_bf16": {"local_loss": "man", "precision": "bf16", "set": {"lag": 2}},
    "man_on_infopro": {"local_loss": "man", "base": "infopro", "set": {"lag": 2, "learn_scale": True}},
}
"""A name for each case: the file of conf/local_loss/, and what is set otherwise."""

MODELS = {"resnet": ("resnet32", {"depth": 14}), "vit": ("vit_tiny", {"depth": 6, "width": 48})}

CASES = [f"{loss}_{model}" for loss in LOSSES for model in MODELS]

COMMON = [
    "dataset=synthetic", "dataset.image_size=16", "dataset.train_size=16", "dataset.test_size=10", "partition=even",
    "partition.blocks=4", "batch_size=4", "epochs=2", "max_steps=6", "tracker=none", "threads=1",
    "log.every_steps=1", "device=cpu",
]  # fmt: skip


def write_cases(folder: Path) -> None:
    """An ``experiment`` file for every case."""
    for name, case in LOSSES.items():
        for model, (model_file, model_options) in MODELS.items():
            overrides = [{"override /local_loss": case["local_loss"]}, {"override /model": model_file}]
            if "base" in case:
                overrides.append({"override /local_loss@local_loss.base": case["base"]})
            content = {"defaults": overrides, "local_loss": case.get("set", {}), "model": model_options}
            content["precision"] = case.get("precision", "fp32")
            (folder / f"{name}_{model}.yaml").write_text(f"# @package _global_\n{json.dumps(content)}\n")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, torchrun: Job, alone: Job) -> Path:
    """The run directories ``ppll/<n>`` and ``sequential/<n>`` of case number n."""
    folder = tmp_path_factory.mktemp("losses")
    (folder / "experiment").mkdir()
    write_cases(folder / "experiment")
    sweep = [*COMMON, f"experiment={','.join(CASES)}", f"hydra.searchpath=[file://{folder}]"]
    for done in (
        torchrun(4, folder, "--multirun", *sweep, "hydra.sweep.dir=ppll"),
        alone(folder, "--multirun", *sweep, "engine=sequential", "hydra.sweep.dir=sequential"),
    ):
        assert done.status == 0, done.out[-2000:] + done.err[-4000:]
    return folder


def epochs(run: Path) -> list[dict[str, object]]:
    """What a run's epochs measured, without times."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{key: line[key] for key in ("epoch", "train", "test")} for line in lines if line["kind"] == "epoch"]


def test_every_local_loss_is_among_the_cases() -> None:
    assert {case["local_loss"] for case in LOSSES.values()} == {p.stem for p in (CONFIGS / "local_loss").glob("*.yaml")}


@pytest.mark.parametrize("number, case", enumerate(CASES))
def test_four_ranks_are_bit_equal_to_one_process(runs: Path, number: int, case: str) -> None:
    found, wanted = (load_file(runs / engine / str(number) / "model.safetensors") for engine in ("ppll", "sequential"))
    assert found.keys() == wanted.keys()
    assert [name for name in wanted if not torch.equal(found[name], wanted[name])] == []
    # Losses and accuracies of every block, early exits included.
    assert epochs(runs / "ppll" / str(number)) == epochs(runs / "sequential" / str(number)) != []
