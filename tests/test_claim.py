"""A run directory belongs to one run: what is there is neither lost nor taken for something else's."""

import fcntl
import json
import os
from pathlib import Path

import pytest

from tests.command_line import TINY, CommandLine, assert_one_sentence
from trainer.errors import SettingError
from trainer.rundir import RunDirectory


def test_a_directory_in_use_is_refused(command: CommandLine, tmp_path: Path) -> None:
    descriptor = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    outcome = command(*TINY, f"output_dir={tmp_path}", "max_steps=1")
    assert_one_sentence(outcome, f"output_dir={tmp_path} is in use by another run; wait until it has ended, or give")
    assert not list(tmp_path.iterdir())
    with pytest.raises(SettingError, match="in use"):
        RunDirectory(tmp_path).lock(restarted=False)
    os.close(RunDirectory(tmp_path).lock(restarted=True))  # what is left there is its own
    os.close(descriptor)
    assert command(*TINY, f"output_dir={tmp_path}", "max_steps=1").status == 0


def test_jobs_of_a_sweep_do_not_share_a_directory(command: CommandLine, tmp_path: Path) -> None:
    sweep = ("--multirun", f"hydra.sweep.dir={tmp_path}", "hydra.sweep.subdir=x", "seed=1,2", "max_steps=1")
    outcome = command(*TINY, *sweep)
    assert outcome.status == 2 and "jobs 0 and 1 of the sweep would share the directory" in outcome.err
    assert json.loads((tmp_path / "x/metrics.jsonl").read_text().splitlines()[-1])["kind"] == "summary"


def test_a_sweep_goes_on_after_a_job_that_failed(command: CommandLine, tmp_path: Path) -> None:
    sweep = ("--multirun", f"hydra.sweep.dir={tmp_path}", "max_steps=1")
    failed = command(*TINY, *sweep, "batch_size=8,65")
    assert failed.status == 2 and "batch_size=65 is larger" in failed.err
    assert f"this ends the sweep; with hydra.sweep.dir={tmp_path} the same command goes on with it" in failed.out
    again = command(*TINY, *sweep, "batch_size=8,16")
    assert again.status == 0 and "this run has ended" in again.out and (tmp_path / "1/model.safetensors").is_file()


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (("engine=backprop", "partition.points=null"), "engine=Backprop (was Sequential)"),
        (("local_loss=dgl", "resume_strict=false"), "local_loss._target_="),
        (("partition.points=[stem]",), "partition.points=[stem] (was [stem,layer2.0])"),
    ],
)
def test_a_finished_run_is_not_another_ones_result(
    command: CommandLine, tmp_path: Path, changed: tuple[str, ...], said: str
) -> None:
    assert command(*TINY, f"output_dir={tmp_path}", "max_steps=2").status == 0
    outcome = command(*TINY, f"output_dir={tmp_path}", "max_steps=2", *changed)
    assert_one_sentence(outcome, "has ended, and there is nothing left to train with")
    assert said in outcome.err
    assert command(*TINY, f"output_dir={tmp_path}", "max_steps=2").out.startswith("this run has ended")


def test_another_way_of_training_is_a_warning(command: CommandLine, tmp_path: Path) -> None:
    assert command(*TINY, f"output_dir={tmp_path}", "max_steps=2").status == 0
    outcome = command(*TINY, f"output_dir={tmp_path}", "max_steps=3", "engine=backprop", "partition.points=null")
    assert outcome.status == 0, outcome.err
    assert "warning: rank 0: engine=Backprop (was Sequential): from here on the training is another" in outcome.out


@pytest.mark.parametrize("begin", ["output_dir={old}", "init_from={old}"])
def test_weights_of_another_model_are_refused_before_anything_is_written(
    command: CommandLine, tmp_path: Path, begin: str
) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    assert command(*TINY, f"output_dir={old}", "max_steps=2").status == 0
    before = {file: file.read_bytes() for file in old.rglob("*") if file.is_file()}
    given = (f"output_dir={new}", begin.format(old=old)) if "init" in begin else (begin.format(old=old),)
    outcome = command(*TINY, *given, "model.width=16", "resume_strict=false")
    shapes = "stem.conv.weight of shape (8, 3, 3, 3), but the model wants it of shape (16, 3, 3, 3)"
    assert_one_sentence(outcome, shapes)
    assert "init_from=" in outcome.err or "init" not in begin
    assert {file: file.read_bytes() for file in old.rglob("*") if file.is_file()} == before and not new.exists()
