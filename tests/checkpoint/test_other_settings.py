"""A run that goes on with something changed: what is kept, and what begins anew."""

import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file

from tests.checkpoint.runs import metrics, model
from tests.command_line import TINY, CommandLine

OPTIMIZERS = ("optimizer=sgd", "optimizer=adamw")


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
