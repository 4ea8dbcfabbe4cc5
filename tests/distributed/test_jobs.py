"""Whole jobs as users start them: directories, sweeps, errors, results."""

import json
import sys
from pathlib import Path

import pytest

from tests.distributed.conftest import TINY, Job, run
from trainer.evaluate import evaluate

FILES = {"checkpoints", "config.yaml", "partition.json", "metrics.jsonl", "model.safetensors", "console.log"}
ONE_CUT = ("partition.points=[stem]",)
SMALL_NET = ("model.depth=8", "model.width=8")


def records(directory: Path) -> list[dict]:
    return [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]


def test_late_ranks_share_one_directory_and_every_block_is_reported(tmp_path: Path) -> None:
    late = (
        "import os, runpy, time; time.sleep(int(os.environ['RANK'])); "
        "runpy.run_module('trainer.main', run_name='__main__')"
    )
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=3", "--no-python"]
    job = run([*launcher, sys.executable, "-c", late, *TINY, *SMALL_NET, "log.every_steps=2"], tmp_path)
    assert job.status == 0, job.err
    (day,) = (tmp_path / "outputs").iterdir()
    (directory,) = day.iterdir()
    assert {path.name for path in directory.iterdir()} == FILES
    found = records(directory)
    assert [(r["kind"], r.get("step")) for r in found[:-1]] == [
        ("step", 2), ("step", 4), ("epoch", 4), ("step", 6), ("step", 8), ("epoch", 8)
    ]  # fmt: skip
    assert all(len(r["blocks"]) == 3 for r in found if r["kind"] == "step")
    epoch, summary = found[-2], found[-1]
    assert len(epoch["ranks"]) == 3 and all(rank["busy_seconds"] > 0 for rank in epoch["ranks"])
    assert summary["test_accuracy"] == epoch["test"]["accuracy"] and summary["left_out_steps"] == 5
    assert evaluate(str(directory)) == [block["accuracy"] for block in epoch["test"]["blocks"]]
    assert job.out == (directory / "console.log").read_text()


def test_a_sweep_has_a_directory_a_job(forked: Job, tmp_path: Path) -> None:
    job = forked(
        2, tmp_path, "--multirun", "seed=1,2", "max_steps=3", *TINY, *SMALL_NET, "tracker.mode=offline", "tracker=wandb"
    )
    assert job.status == 0, job.err
    (day,) = (tmp_path / "multirun").iterdir()
    (sweep,) = day.iterdir()
    assert {path.name for path in sweep.iterdir()} == {"0", "1", "multirun.yaml"}
    for number in (0, 1):
        directory = sweep / str(number)
        assert {path.name for path in directory.iterdir()} == {*FILES, "wandb"}
        assert f"seed: {number + 1}\n" in (directory / "config.yaml").read_text()
        assert [r["step"] for r in records(directory) if r["kind"] == "epoch"] == [3]
        assert len(list((directory / "wandb").glob("offline-run-*"))) == 1
    assert not (tmp_path / "outputs").exists()


def error_lines(err: str) -> list[str]:
    return [line for line in err.splitlines() if "error: " in line]


@pytest.mark.parametrize(
    ("start", "ranks", "overrides", "sentence"),
    [
        (
            "forked",
            3,
            ["partition.points=[stem]"],
            "error: 3 ranks need at least one block each, but the number of blocks is 2; start as many ranks ",
        ),
        ("torchrun", 2, ["nonsense=1"], "error: nonsense is no option; python -m trainer.main --help lists them all"),
        ("forked", 2, ["engine=sequential"], "error: engine=sequential is one process, but torchrun started 2"),
        (
            "forked",
            2,
            ["engine=ddp_local", "local_loss=dgl", "batch_size=2"],
            "error: batch_size=2 gives one image at a time, which is too few for the batch norm of this model or local",
        ),
        (
            "forked",
            2,
            ["engine=pipeline", "engine.microbatches=4", "batch_size=4", "dataset.image_size=4", *ONE_CUT],
            "error: batch_size=4 gives one image at a time, which is too few for the batch norm of this model or local",
        ),
        ("forked", 2, ["optimizer.lr=1e30", "epochs=20"], "error: the loss of block "),
    ],
)
def test_a_wrong_job_ends_soon_with_one_sentence(
    start: str, ranks: int, overrides: list[str], sentence: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    job = request.getfixturevalue(start)(ranks, tmp_path, *TINY, *SMALL_NET, *overrides, timeout=60)
    assert job.status != 0
    assert "forcefully exiting" not in job.err  # torchrun had no rank to kill that hung
    (line,) = error_lines(job.err)
    assert line.startswith(sentence)
    assert job.err.index("error: ") < job.err.index("Traceback")  # torchrun's own report comes below


def test_a_mistake_in_one_process(alone: Job, tmp_path: Path) -> None:
    job = alone(tmp_path, "batch_size=5000", "tracker=none")
    assert job.status == 2 and job.out == ""
    assert job.err == "error: batch_size=5000 is larger than the training data, which has 1437 images\n"


def test_a_preview_trains_nothing(forked: Job, tmp_path: Path) -> None:
    job = forked(2, tmp_path, *TINY, "model=vit_tiny", "dry_run=true")
    assert job.status == 0 and "sends a step" in job.out and not (tmp_path / "outputs").exists()


def test_every_block_learns_real_images(forked: Job, tmp_path: Path) -> None:
    """The digits, which are the default."""
    job = forked(
        4, tmp_path, "epochs=5", "model.depth=14", "model.width=8", "device=cpu", "tracker=none", "output_dir=run"
    )
    assert job.status == 0, job.err
    summary = records(tmp_path / "run")[-1]
    assert summary["test_accuracy"] > 0.85
    assert summary["exit_accuracies"] == pytest.approx([0.9] * 4, abs=0.1)
    first, *_, last = (r["train"]["blocks"] for r in records(tmp_path / "run") if r["kind"] == "epoch")
    assert all(after["loss"] < before["loss"] - 0.05 for before, after in zip(first, last, strict=True))
