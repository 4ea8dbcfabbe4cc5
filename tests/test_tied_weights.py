"""Two units of a model may share weights: in one block they stay shared, and no cut comes between them."""

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import nn

import trainer
from tests.command_line import TINY, CommandLine, assert_one_sentence
from trainer.export import export
from trainer.units import named_parameters, named_state, units_of

SETTINGS = tuple(setting for setting in TINY if not setting.startswith(("model.", "partition."))) + (
    f"model._target_={__name__}.with_a_tie", "~model.depth", "~model.width", "optimizer.lr=0.05",
)  # fmt: skip


def with_a_tie(num_classes: int, image_shape: tuple[int, ...]) -> nn.Sequential:
    """The convolutions ``there`` and ``back`` have one weight."""
    model, there, back = nn.Sequential(), nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
    back.weight = there.weight
    units = {"stem": nn.Conv2d(image_shape[0], 4, 3, padding=1), "there": there, "norm": nn.BatchNorm2d(4),
             "back": back, "flat": nn.Flatten(), "head": nn.Linear(4 * 8 * 8, num_classes)}  # fmt: skip
    for name, unit in units.items():
        model.add_module(name, unit)
    return model


def test_a_tie_within_a_block_holds(command: CommandLine, tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    cuts = "partition.points=[stem,back]"
    assert command(*SETTINGS, cuts, f"output_dir={whole}").status == 0
    for end in ("max_steps=13", "max_steps=null"):
        outcome = command(*SETTINGS, cuts, f"output_dir={parts}", end)
        assert outcome.status == 0, outcome.err
    tensors, again = load_file(whole / "model.safetensors"), load_file(parts / "model.safetensors")
    assert torch.equal(tensors["there.weight"], tensors["back.weight"])
    assert not torch.equal(tensors["there.bias"], tensors["back.bias"])
    assert tensors.keys() == again.keys() and all(torch.equal(tensors[name], again[name]) for name in tensors)
    modules = trainer.load(whole, trust=True).modules_by_name()
    assert modules["there"].weight is modules["back"].weight
    (file,) = export(whole, tmp_path / "export", ("safetensors",), trust=True)
    assert torch.equal(load_file(file)["back.weight"], tensors["there.weight"])


def test_shared_parameters_have_one_name() -> None:
    """An optimizer that was given them twice would step twice."""
    model = with_a_tie(10, (3, 8, 8))
    assert named_parameters(units_of(model)).keys() == dict(model.named_parameters()).keys()
    assert "back.weight" in named_state(units_of(model))


def test_a_cut_through_a_tie_is_refused(command: CommandLine, tmp_path: Path) -> None:
    outcome = command(*SETTINGS, "partition.points=[stem,norm]", f"output_dir={tmp_path}/run", cwd=tmp_path)
    assert_one_sentence(outcome, "the model ties there.weight to back.weight, so they have to be in one block, but it ")
    assert not list(tmp_path.iterdir())
