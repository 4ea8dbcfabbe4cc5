"""A run that goes on from a checkpoint ends as one that was never stopped."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.command_line import TINY, CommandLine
from trainer.export import export

Record = dict[str, Any]

OPTIMIZERS = ("optimizer=sgd", "optimizer=adamw")


def model(run: Path) -> dict[str, bytes]:
    return {name: tensor.numpy().tobytes() for name, tensor in load_file(run / "model.safetensors").items()}


def metrics(run: Path) -> list[Record]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def results(run: Path) -> list[Record]:
    """The metrics without what a clock measured."""
    kept = []
    for record in metrics(run):
        timeless = {
            key: record.get(key) for key in ("kind", "step", "epoch", "train", "test", "test_accuracy", "steps")
        }
        blocks = [{k: v for k, v in block.items() if k != "busy"} for block in record.get("blocks", [])]
        kept.append({**timeless, "blocks": blocks, "best": record.get("best_test_accuracy")})
    return kept


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


def test_other_cuts_keep_the_weights_and_start_missing_classifiers_fresh(
    command: CommandLine,
    tmp_path: Path,
) -> None:
    run = tmp_path / "run"
    for optimizer in OPTIMIZERS:
        shutil.rmtree(run, ignore_errors=True)
        assert command(*TINY, optimizer, f"output_dir={run}", "max_steps=12").status == 0
        outcome = command(*TINY, optimizer, f"output_dir={run}", "partition.points=[stem,layer1.0]")
        assert outcome.status == 0, outcome.err
        assert "the local classifier after layer1.0 starts with initial weights" in outcome.out
        assert "classifier after stem" not in outcome.out
        names = load_file(run / "model.safetensors")
        assert {name.split(".head")[0] for name in names if name.startswith("local")} == {
            "local_classifiers.stem",
            "local_classifiers.layer1.0",
        }


def test_cut_points_that_are_left_open_are_kept(command: CommandLine, tmp_path: Path) -> None:
    """Four blocks by default in one process, one under ppll with one rank."""
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    left_open = (*TINY, "partition.points=null")
    assert command(*left_open, f"output_dir={whole}").status == 0
    assert command(*left_open, f"output_dir={stopped}", "max_steps=12").status == 0
    outcome = command(*left_open, f"output_dir={stopped}", "engine=ppll")
    assert outcome.status == 0, outcome.err
    assert "4 blocks, as in the checkpoint" in outcome.out and "another objective" not in outcome.out
    assert model(stopped) == model(whole)


def test_an_optimizer_lays_out_what_it_keeps_for_a_fresh_classifier(command: CommandLine, tmp_path: Path) -> None:
    nadam = ("optimizer=adamw", "optimizer._target_=torch.optim.NAdam", "~optimizer.fused")
    assert command(*TINY, *nadam, f"output_dir={tmp_path}", "max_steps=12").status == 0
    outcome = command(*TINY, *nadam, f"output_dir={tmp_path}", "partition.points=[stem,layer1.0]", "max_steps=13")
    assert outcome.status == 0, outcome.err
    (file,) = (tmp_path / "checkpoints" / "step-00000013").glob("*.safetensors")
    kept = load_file(file)
    steps = {name: float(value) for name, value in kept.items() if name.endswith(".step")}
    assert {value for name, value in steps.items() if "classifiers.layer1.0" in name} == {1.0}
    assert {value for name, value in steps.items() if "classifiers.layer1.0" not in name} == {13.0}
    products = {name: float(value) for name, value in kept.items() if "layer1.0" in name and "mu_product" in name}
    assert len(set(products.values())) == 2 and 0.0 not in products.values()


def test_goes_on_from_a_path_in_a_new_directory(command: CommandLine, tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    assert command(*TINY, f"output_dir={old}").status == 0
    checkpoint = old / "checkpoints" / "step-00000016"
    outcome = command(*TINY, f"output_dir={new}", f"resume={checkpoint}")
    assert outcome.status == 0, outcome.err
    assert model(new) == model(old) and results(new) == results(old)


def test_begins_with_given_weights(command: CommandLine, tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    assert command(*TINY, f"output_dir={old}").status == 0
    outcome = command(*TINY, f"output_dir={new}", f"init_from={old}", "optimizer.lr=0.0", "max_steps=1", "seed=5")
    assert outcome.status == 0 and "begins with the weights of" in outcome.out
    before, after = model(old), model(new)
    assert {name for name in before if before[name] != after[name]} == {
        name for name in before if "running" in name or "num_batches" in name
    }


def test_begins_with_the_weights_of_a_file_without_local_classifiers(command: CommandLine, tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    assert command(*TINY, f"output_dir={old}").status == 0
    (weights,) = export(old, tmp_path, ("safetensors",))
    outcome = command(*TINY, f"output_dir={new}", f"init_from={weights}", "optimizer.lr=0.0", "max_steps=1")
    assert outcome.status == 0, outcome.err
    assert "warning: the local classifier after stem starts with initial weights" in outcome.out
    before, after = model(old), model(new)
    same = {name for name in before if before[name] == after[name]}
    assert {"stem.conv.weight", "head.fc.weight"} <= same
    assert not [name for name in same if name.startswith("local_classifiers.") and name.endswith("weight")]


@pytest.mark.parametrize("begin", ["init_from={old}", "resume={old}"])
@pytest.mark.parametrize("local_loss", ["overlap", "man"])
def test_a_copy_of_the_next_unit_begins_with_its_given_weights(
    command: CommandLine, tmp_path: Path, begin: str, local_loss: str
) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    assert command(*TINY, f"output_dir={old}", "max_steps=8").status == 0
    outcome = command(
        *TINY, f"output_dir={new}", begin.format(old=old), "resume_strict=false", f"local_loss={local_loss}",
        "local_loss.every=99", "optimizer.lr=0.0", "max_steps=9", "seed=5",
    )  # fmt: skip
    assert outcome.status == 0, outcome.err
    before, after = load_file(old / "model.safetensors"), load_file(new / "model.safetensors")
    own = {"overlap": ["next"], "man": ["learned", "next"]}[local_loss]
    copies = [name for name in sorted(after) if name.startswith("local_classifiers.stem.") and "first.conv" in name]
    assert copies == [f"local_classifiers.stem.{copy}.first.conv.weight" for copy in own]
    assert all(torch.equal(after[name], before["layer1.0.first.conv.weight"]) for name in copies)


def test_changed_settings_are_allowed_where_the_user_says_so(command: CommandLine, tmp_path: Path) -> None:
    changed = ("optimizer.lr=0.01", "seed=1", "epochs=4")
    assert command(*TINY, f"output_dir={tmp_path}", "max_steps=12").status == 0
    assert command(*TINY, f"output_dir={tmp_path}", *changed).status == 2
    outcome = command(*TINY, f"output_dir={tmp_path}", *changed, "resume_strict=false")
    assert outcome.status == 0 and "goes on after step 12" in outcome.out, outcome.err
    steps = [record for record in metrics(tmp_path) if record["kind"] == "step"]
    assert [record["step"] for record in steps] == list(range(1, 33))
    assert steps[12]["blocks"][0]["learning_rate"] < 0.01 < steps[11]["blocks"][0]["learning_rate"]


def test_another_optimizer_begins_without_a_state(command: CommandLine, tmp_path: Path) -> None:
    adamw = ("optimizer=adamw", "resume_strict=false", "update.average=0.9")
    assert command(*TINY, f"output_dir={tmp_path}", "max_steps=12", "update.average=0.9").status == 0
    outcome = command(*TINY, f"output_dir={tmp_path}", "max_steps=14", *adamw)
    assert outcome.status == 0, outcome.err
    assert "warning: the optimizer begins without a state" in outcome.out
    assert "begins without" not in command(*TINY, f"output_dir={tmp_path}", "max_steps=15", *adamw).out
    kept = load_file(next(tmp_path.glob("checkpoints/step-00000014/rank-0.safetensors")))
    states = {name.rpartition(".")[2] for name in kept if name.startswith("optimizer.")}
    assert states == {"step", "exp_avg", "exp_avg_sq", "average"}
    assert kept["optimizer.stem.conv.weight.step"] == 2


def test_weights_are_no_average_any_more_where_none_is_asked_for(command: CommandLine, tmp_path: Path) -> None:
    assert command(*TINY, f"output_dir={tmp_path}", "max_steps=12", "update.average=0.9").status == 0
    assert command(*TINY, f"output_dir={tmp_path}", "max_steps=14", "resume_strict=false").status == 0
    kept = load_file(tmp_path / "checkpoints/step-00000014/rank-0.safetensors")
    assert not [name for name in kept if name.endswith(".average")]
    assert all(kept[name].numpy().tobytes() == value for name, value in model(tmp_path).items())


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


def test_means_begin_anew_where_the_loss_has_other_terms(command: CommandLine, tmp_path: Path) -> None:
    loss = ("local_loss=predsim", "resume_strict=false")
    assert command(*TINY, f"output_dir={tmp_path}", "max_steps=12", "local_loss=infopro").status == 0
    outcome = command(*TINY, f"output_dir={tmp_path}", "max_steps=16", *loss)
    assert outcome.status == 0, outcome.err
    records = metrics(tmp_path)
    (epoch,) = (record for record in records if record["kind"] == "epoch" and record["step"] == 16)
    steps = [record for record in records if record["kind"] == "step" and record["step"] > 12]
    for name in ("loss", "loss_prediction", "loss_similarity"):
        means = [step["blocks"][0][name] for step in steps]
        assert epoch["train"]["blocks"][0][name] == pytest.approx(sum(means) / len(means))


def test_a_run_goes_on_where_the_trained_weights_it_began_with_cant_be_had(
    command: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torchvision.models import MobileNet_V3_Small_Weights, get_model

    theirs = get_model("mobilenet_v3_small", weights=None, num_classes=1000).state_dict()
    run = (
        *(setting for setting in TINY if not setting.startswith(("model.", "partition."))), "model=torchvision",
        "model.name=mobilenet_v3_small", "model.weights=DEFAULT", "dataset.image_size=32", f"output_dir={tmp_path}",
        "partition.points=[features.3]",
    )  # fmt: skip
    with monkeypatch.context() as there:
        there.setattr(MobileNet_V3_Small_Weights, "get_state_dict", lambda self, *args, **kwargs: theirs)
        begun = command(*run, "max_steps=1")
    assert begun.status == 0, begun.err
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    outcome = command(*run, "max_steps=2")
    assert outcome.status == 0 and "goes on after step 1" in outcome.out, outcome.err
    assert not (tmp_path / "hub").exists()


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
