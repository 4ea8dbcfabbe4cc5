"""What happens to the ranks of a run, and that nothing trained is lost."""

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file

from scripts.chaos import SYNTHETIC, Job, chaos
from tests.command_line import CommandLine

LONG = 4000


@pytest.fixture
def job(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Job]:
    """As many ranks as the test asks for, with its settings, that train for longer than any test waits, with a
    checkpoint every five steps."""
    ranks, *settings = request.param
    data = SYNTHETIC
    if "dataset.workers=1" in settings:
        data = ("dataset=image_folder", f"dataset.root={folder_of_images(tmp_path / 'images')}", "dataset.image_size=8")
    job = Job(tmp_path / "run", ranks, LONG, 0, "batch_size=12", *settings, data=data)
    yield job
    job.end()


def folder_of_images(root: Path) -> Path:
    """Ten images for the training and two for the test of each of ten classes."""
    pixels = np.random.default_rng(0).integers(256, size=(8, 8, 3), dtype=np.uint8)
    for split, count in (("train", 10), ("val", 2)):
        for label in range(10):
            (root / split / str(label)).mkdir(parents=True)
            for number in range(count):
                Image.fromarray(pixels + label).save(root / split / str(label) / f"{number}.png")
    return root


def until(job: Job, step: int) -> None:
    end = time.monotonic() + 120
    while job.step() < step:
        assert job.process.poll() is None and time.monotonic() < end, (job.directory / "launcher.log").read_text()
        time.sleep(0.02)


def log(job: Job) -> str:
    return (job.directory / "launcher.log").read_text()


@pytest.mark.parametrize(
    "job, ranks",
    [
        ((3, "engine=ppll"), 3),
        ((2, "engine=ppll", "dataset.workers=1"), 2),  # the launcher signals the workers as well
        ((2, "engine=backprop"), 2),
    ],
    indirect=["job"],
    ids=["ppll", "worker processes", "backprop"],
)
def test_sigterm_ends_all_ranks_at_one_step_and_the_run_goes_on(job: Job, ranks: int, command: CommandLine) -> None:
    until(job, 20)
    job.process.send_signal(signal.SIGTERM)
    job.process.wait(30)
    sentence = next(line for line in log(job).splitlines() if line.startswith("SIGTERM ended the run after step "))
    last = int(sentence.split()[6].rstrip(";"))
    manifest = json.loads((job.directory / "checkpoints" / f"step-{last:08d}" / "manifest.json").read_text())
    assert manifest["step"] == last and len(manifest["parts"]) == ranks
    assert not (job.directory / "model.safetensors").exists()

    end = last + 3  # goes on, in one process, and again ends where it would have ended
    blocks = [] if "engine=backprop" in job.settings else [f"partition.blocks={ranks}"]
    again = command(*job.settings, f"max_steps={end}", *blocks)
    assert again.status == 0, again.err
    assert f"goes on after step {last}" in again.out
    steps = [json.loads(line) for line in (job.directory / "metrics.jsonl").read_text().splitlines()]
    assert [record["step"] for record in steps if record["kind"] == "step"] == list(range(1, end + 1))


def test_no_rank_leaves_before_the_tracker_is_closed(tmp_path: Path) -> None:
    """A launcher ends all ranks when one has left: here the one that was told to stop, and rank 0 has W&B to close."""
    job = Job(tmp_path / "run", 2, LONG, 0, "tracker=wandb", "tracker.mode=offline")
    try:
        until(job, 20)
        stopped = job.rank(1)
        assert stopped is not None
        os.kill(stopped, signal.SIGTERM)
        job.process.wait(40)
    finally:
        job.end()
    assert "SIGTERM ended the run after step " in log(job)
    assert "exitcode  : 143" in log(job) and "exitcode  : -15" not in log(job)


@pytest.mark.parametrize("job", [(3, "engine=ppll", "timeout_seconds=5")], indirect=True, ids=["ppll"])
def test_a_rank_that_hangs_is_named(job: Job) -> None:
    until(job, 20)
    hung = job.rank(2)
    assert hung is not None
    os.kill(hung, signal.SIGSTOP)
    end = time.monotonic() + 40
    while "error: " not in log(job) and time.monotonic() < end:
        time.sleep(0.1)
    sentence = next(line for line in log(job).splitlines() if line.startswith("error: "))
    assert sentence.startswith("error: rank 2 stopped answering")
    assert "waited for" in sentence
    assert not (job.directory / "model.safetensors").exists()


def test_kills_cost_nothing(tmp_path: Path) -> None:
    report = chaos(2, 1, 2, tmp_path)
    assert len(report.kills) == 2 and report.resumes >= 1
    assert report.identical, report.text()
    left = load_file(tmp_path / "disturbed" / "model.safetensors")
    assert any(name.startswith("local_classifiers.") for name in left)
