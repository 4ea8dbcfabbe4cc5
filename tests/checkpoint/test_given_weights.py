"""A run that begins with the state or the weights of another one."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.checkpoint.runs import model, results
from tests.command_line import TINY, CommandLine
from trainer.export import export


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
