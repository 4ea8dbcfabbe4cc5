"""Exported networks compute what the run's model computes."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import trainer
from tests.command_line import TINY, CommandLine
from tests.models.test_cut import OwnParameter
from trainer.errors import SettingError
from trainer.export import _weights as exported_weights
from trainer.export import export
from trainer.models.cut import cut_up
from trainer.units import units_of


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("run") / "run"


@pytest.mark.parametrize("exit_after", [None, "stem"])
def test_files_hold_the_model(exit_after: str | None, folder: Path, command: CommandLine, tmp_path: Path) -> None:
    if not folder.exists():
        assert command(*TINY, f"output_dir={folder}").status == 0
    weights, program = export(folder, tmp_path, exit_after=exit_after)
    network = trainer.load(folder)
    images = torch.randn(5, *network.spec.image_shape)
    expected = network(images) if exit_after is None else network.exits(images)[0]
    assert torch.allclose(torch.export.load(program).module()(images), expected, atol=1e-5)
    names = set(load_file(weights))
    if exit_after is None:
        assert any(name.startswith("head") for name in names)
        assert not any(name.startswith("local_classifiers") for name in names)
    else:
        assert {name.split(".")[0] for name in names} == {"stem", "local_classifiers"}
    with pytest.raises(SettingError, match="--exit layer9 is no early exit of this run; it has stem, layer2.0"):
        export(folder, tmp_path, exit_after="layer9")


def test_weights_have_the_names_of_the_model() -> None:
    units = units_of(cut_up(OwnParameter(), "it"))  # one of which has a parameter of the whole model
    assert set(exported_weights(units)) == set(OwnParameter().state_dict())


def test_onnx_says_what_it_needs(folder: Path, command: CommandLine, tmp_path: Path) -> None:
    if not folder.exists():
        assert command(*TINY, f"output_dir={folder}").status == 0
    try:
        import onnxruntime  # noqa: F401
    except ImportError:
        with pytest.raises(SettingError, match="--format onnx needs the extra onnx"):
            export(folder, tmp_path, ("onnx",))
    else:
        assert export(folder, tmp_path, ("onnx",))[0].is_file()
