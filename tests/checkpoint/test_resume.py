"""A run that goes on from a checkpoint ends as one that was never stopped."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from safetensors.torch import load_file

from tests.checkpoint.runs import model, results
from tests.command_line import TINY, CommandLine

OPTIMIZERS = ("optimizer=sgd", "optimizer=adamw")


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_goes_on_bit_for_bit_from_any_step(optimizer: str, command: CommandLine, tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert command(*TINY, optimizer, f"output_dir={whole}").status == 0
    for end in ("max_steps=3", "max_steps=8", "max_steps=13", "max_steps=null"):
        outcome = command(*TINY, optimizer, f"output_dir={parts}", end)
        assert outcome.status == 0, outcome.err
    assert "goes on after step 13" in outcome.out
    assert model(parts) == model(whole)
    assert results(parts) == results(whole)


def test_killed_before_the_test_of_an_epoch(command: CommandLine, tmp_path: Path) -> None:
    """A checkpoint at the end of an epoch is older than the epoch's test, which the resumed run has to make."""
    run = tmp_path / "run"
    assert command(*TINY, f"output_dir={run}").status == 0
    expected, weights = results(run), model(run)
    for step, name in ((16, "step-00000016"), (24, "step-00000024")):
        copy = tmp_path / name
        shutil.copytree(run, copy)
        (copy / "model.safetensors").unlink()
        for folder in (copy / "checkpoints").iterdir():
            if folder.name != name:
                shutil.rmtree(folder)
        outcome = command(*TINY, f"output_dir={copy}")
        assert outcome.status == 0 and f"goes on after step {step}" in outcome.out
        assert results(copy) == expected
        assert model(copy) == weights


def test_a_damaged_checkpoint_is_named_and_the_one_before_taken(command: CommandLine, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert command(*TINY, f"output_dir={run}", "checkpoint.keep=3").status == 0
    weights = model(run)
    newest = run / "checkpoints" / "step-00000024"
    part = newest / "rank-0.safetensors"
    data = bytearray(part.read_bytes())
    data[len(data) // 2] ^= 1
    part.write_bytes(data)
    (run / "checkpoints" / "step-00000016" / "manifest.json").unlink()
    (run / "model.safetensors").unlink()
    outcome = command(*TINY, f"output_dir={run}")
    assert outcome.status == 0
    assert f"{part} is damaged: its SHA-256 sum is not that of manifest.json" in outcome.out
    assert "step-00000016 is incomplete: it has no manifest.json; the checkpoint before it is taken" in outcome.out
    assert "goes on after step 8" in outcome.out
    assert model(run) == weights


def test_only_the_newest_whole_ones_stay(command: CommandLine, tmp_path: Path) -> None:
    settings = ("checkpoint.every_steps=5", "checkpoint.every_epochs=null", "checkpoint.keep=3")
    assert command(*TINY, f"output_dir={tmp_path}", *settings).status == 0
    names = sorted(folder.name for folder in (tmp_path / "checkpoints").iterdir())
    assert names == ["step-00000015", "step-00000020", "step-00000024"]
    assert sorted(file.name for file in (tmp_path / "checkpoints" / names[0]).iterdir()) == [
        "manifest.json",
        "rank-0.safetensors",
    ]


def test_a_finished_run_prints_its_summary(command: CommandLine, tmp_path: Path) -> None:
    first = command(*TINY, f"output_dir={tmp_path}")
    before = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*") if file.is_file()}
    again = command(*TINY, f"output_dir={tmp_path}")
    assert again.status == 0 and again.err == ""
    assert again.out.splitlines()[0] == "this run has ended"
    assert again.out.splitlines()[1:] == first.out.splitlines()[-len(again.out.splitlines()) + 1 :]
    assert {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*") if file.is_file()} == before


def test_only_an_unfinished_batch_leaves_gradients(command: CommandLine, tmp_path: Path) -> None:
    parts = ("update.accumulate=2", "optimizer.lr=0.01", "checkpoint.every_steps=1", "checkpoint.keep=9")
    assert command(*TINY, f"output_dir={tmp_path}", "max_steps=4", *parts).status == 0
    for step, left in ((3, True), (4, False)):
        kept = load_file(tmp_path / f"checkpoints/step-{step:08d}/rank-0.safetensors")
        assert any(name.startswith("gradient.") for name in kept) == left


def test_a_batch_is_gone_on_with_elsewhere(command: CommandLine, tmp_path: Path) -> None:
    """Where the classifier after a cut has the same names and other shapes, and where batches have other parts."""
    parts = ("update.accumulate=2", "optimizer.lr=0.01", "local_loss=infopro", "local_loss.reconstruct=input")
    assert command(*TINY, f"output_dir={tmp_path}", "max_steps=3", *parts).status == 0
    for changed in ("partition.points=[layer2.0]", "update.accumulate=4"):
        run = tmp_path / changed.split("=")[0]
        outcome = command(*TINY, f"output_dir={run}", f"resume={tmp_path}", *parts, changed, "resume_strict=false")
        assert outcome.status == 0, outcome.err


def test_ctrl_c_ends_the_run_and_it_goes_on(command: CommandLine, tmp_path: Path) -> None:
    run, whole = tmp_path / "run", tmp_path / "whole"
    process = subprocess.Popen(
        [sys.executable, "-m", "trainer.main", *TINY, "epochs=100", f"output_dir={run}"],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}, stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        end = time.monotonic() + 60
        while not list(run.glob("checkpoints/*/manifest.json")):
            assert process.poll() is None and time.monotonic() < end
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        _, error = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 128 + signal.SIGINT
    last = int(error.removeprefix("SIGINT ended the run after step ").split(";")[0])
    assert error.count("\n") == 1 and (run / f"checkpoints/step-{last:08d}/manifest.json").is_file()
    end_soon = ("epochs=100", f"max_steps={last + 3}")
    assert f"goes on after step {last}" in command(*TINY, *end_soon, f"output_dir={run}").out
    assert command(*TINY, *end_soon, f"output_dir={whole}").status == 0
    assert model(run) == model(whole)
