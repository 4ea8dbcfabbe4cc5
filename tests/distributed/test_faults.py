"""What happens to the ranks of a run, and that nothing trained is lost."""

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from safetensors.numpy import load_file

from scripts.chaos import Job, chaos
from tests.command_line import CommandLine

LONG = 4000


@pytest.fixture
def job(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Job]:
    """Ranks, three unless it says another number, that train for longer than any test waits, with a checkpoint every
    five steps."""
    engine, ranks = getattr(request, "param", ("ppll", 3))
    job = Job(tmp_path / "run", ranks, LONG, 0, "timeout_seconds=5", f"engine={engine}", "batch_size=12")
    yield job
    job.end()


def until(job: Job, step: int) -> None:
    end = time.monotonic() + 120
    while job.step() < step:
        assert job.process.poll() is None and time.monotonic() < end, (job.directory / "launcher.log").read_text()
        time.sleep(0.02)


def log(job: Job) -> str:
    return (job.directory / "launcher.log").read_text()


@pytest.mark.parametrize("job, ranks", [(("ppll", 3), 3), (("backprop", 2), 2)], indirect=["job"])
def test_sigterm_ends_all_ranks_at_one_step_and_the_run_goes_on(job: Job, ranks: int, command: CommandLine) -> None:
    until(job, 20)
    begin = time.monotonic()
    job.process.send_signal(signal.SIGTERM)
    job.process.wait(30)
    assert time.monotonic() - begin < 10
    sentence = next(line for line in log(job).splitlines() if line.startswith("SIGTERM ended the run after step "))
    last = int(sentence.split()[6].rstrip(";"))
    manifest = json.loads((job.directory / "checkpoints" / f"step-{last:08d}" / "manifest.json").read_text())
    assert manifest["step"] == last and len(manifest["parts"]) == ranks
    assert not (job.directory / "model.safetensors").exists()

    end = last + 3  # goes on, in one process, and again ends where it would have ended
    blocks = [] if "engine=backprop" in job.settings else ["partition.blocks=3"]
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
