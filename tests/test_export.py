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
from trainer.export import export, main
from trainer.models.cut import cut_up
from trainer.units import units_of


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("run") / "run"


@pytest.fixture
def folder(place: Path, command: CommandLine) -> Path:
    """A run, the same for all tests."""
    if not place.exists():
        assert command(*TINY, f"output_dir={place}").status == 0
    return place


@pytest.mark.parametrize("exit_after", [None, "stem"])
def test_files_hold_the_model(exit_after: str | None, folder: Path, tmp_path: Path) -> None:
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


def test_what_fails_leaves_no_file_that_looks_exported(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "model.pt2").write_text("of before")
    monkeypatch.setattr("trainer.export.TOLERANCE", -1.0)
    with pytest.raises(SettingError, match="model.pt2 does not compute what the model computes"):
        export(folder, tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["model.pt2"]
    assert (tmp_path / "model.pt2").read_text() == "of before"


def test_a_folder_that_cant_be_written_is_one_sentence(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "file" / "folder"
    output.parent.write_text("")
    monkeypatch.setattr("sys.argv", ["export", str(folder), "--output", str(output)])
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 2
    assert capsys.readouterr().err == f"error: --output {output} can't be written: Not a directory\n"


def test_weights_have_the_names_of_the_model() -> None:
    units = units_of(cut_up(OwnParameter(), "it"))  # one of which has a parameter of the whole model
    assert set(exported_weights(units)) == set(OwnParameter().state_dict())


def test_onnx_says_what_it_needs(folder: Path, tmp_path: Path) -> None:
    try:
        import onnxruntime  # noqa: F401
    except ImportError:
        with pytest.raises(SettingError, match="--format onnx needs the extra onnx"):
            export(folder, tmp_path, ("onnx",))
    else:
        assert export(folder, tmp_path, ("onnx",))[0].is_file()
