"""What a run begins with, and that nothing is given up for it that may be good."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save

from tests.command_line import TINY, CommandLine
from trainer.checkpoint.decide import Decision, begin, decide
from trainer.checkpoint.manifest import FORMAT, Manifest, Part, folder_of
from trainer.errors import SettingError
from trainer.rundir import RunDirectory


def written(run: Path, *steps: int) -> list[Path]:
    """The folders of whole checkpoints."""
    content, paths = save({"x": torch.ones(3)}), []
    part = Part("rank-0.safetensors", len(content), hashlib.sha256(content).hexdigest())
    for step in steps:
        path = folder_of(run / "checkpoints", step)
        path.mkdir(parents=True)
        (path / part.file).write_bytes(content)
        (path / "manifest.json").write_text(Manifest(step, [part], {}, {}, {"cut_points": []}).to_json())
        paths.append(path)
    return paths


def auto(run: Path) -> Decision:
    return decide("auto", None, run, restarted=False)


def interrupt(path: Path) -> None:
    (path / "manifest.json").unlink()


def flip(path: Path) -> None:
    file = path / "rank-0.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"\1")


def truncate(path: Path) -> None:
    file = path / "rank-0.safetensors"
    file.write_bytes(file.read_bytes()[:-1])


def lose(path: Path) -> None:
    (path / "rank-0.safetensors").unlink()


def garble(path: Path) -> None:
    (path / "manifest.json").write_text("{")


def hide_manifest(path: Path) -> None:
    """Nobody, not even root, can read through a link to itself."""
    (path / "manifest.json").unlink()
    (path / "manifest.json").symlink_to("manifest.json")


def hide_part(path: Path) -> None:
    (path / "rank-0.safetensors").unlink()
    (path / "rank-0.safetensors").symlink_to("rank-0.safetensors")


def modernise(path: Path) -> None:
    file = path / "manifest.json"
    file.write_text(file.read_text().replace(f'"format": {FORMAT}', f'"format": {FORMAT + 1}'))


Harm = Callable[[Path], None]

DAMAGES: dict[Harm, str] = {
    flip: "rank-0.safetensors is damaged: its SHA-256 sum is not that of manifest.json",
    truncate: "rank-0.safetensors is damaged: it has ",
    lose: "rank-0.safetensors can't be read: No such file or directory",
    garble: "manifest.json is no JSON: ",
}

MAY_BE_GOOD: dict[Harm, str] = {
    hide_manifest: "manifest.json can't be read: Too many levels of symbolic links",
    hide_part: "rank-0.safetensors can't be read: Too many levels of symbolic links",
    modernise: f"manifest.json has format {FORMAT + 1}, but this version of the trainer reads format {FORMAT} alone",
}


@pytest.mark.parametrize("harm", [interrupt, *DAMAGES])
def test_the_one_before_an_incomplete_or_damaged_one_is_taken(harm: Harm, tmp_path: Path) -> None:
    first, second = written(tmp_path, 8, 16)
    harm(second)
    decision = auto(tmp_path)
    assert decision["kind"] == "resume" and decision["path"] == str(first)
    (warning,) = decision["warnings"]
    assert DAMAGES.get(harm, f"{second} is incomplete: it has no manifest.json") in warning
    assert warning.endswith("; the checkpoint before it is taken")


@pytest.mark.parametrize("harm", MAY_BE_GOOD)
def test_one_that_may_be_good_is_not_passed_over(harm: Harm, tmp_path: Path) -> None:
    _, second = written(tmp_path, 8, 16)
    harm(second)
    with pytest.raises(SettingError, match=MAY_BE_GOOD[harm]):
        auto(tmp_path)


def test_a_run_that_was_ended_before_its_first_checkpoint_begins_anew(tmp_path: Path) -> None:
    paths = written(tmp_path, 8, 16)
    for path in paths:
        interrupt(path)
    decision = auto(tmp_path)
    assert decision["kind"] == "fresh"
    assert [warning.rpartition("; ")[2] for warning in decision["warnings"]] == ["the run begins anew"] * 2
    assert begin(RunDirectory(tmp_path), decision) and not any(path.exists() for path in paths)


@pytest.mark.parametrize("resume", ["auto", "never", "elsewhere"])
@pytest.mark.parametrize("harm", DAMAGES)
def test_a_run_of_damaged_checkpoints_does_not_begin_anew(harm: Harm, resume: str, tmp_path: Path) -> None:
    first, second, third = written(tmp_path / "run", 8, 16, 24)
    (elsewhere,) = written(tmp_path / "elsewhere", 8)
    harm(first)
    harm(second)
    interrupt(third)
    with pytest.raises(SettingError, match=f"{second}.*, and no checkpoint before it is whole; remove the checkpoints"):
        decide(str(elsewhere) if resume == "elsewhere" else resume, None, tmp_path / "run", restarted=False)


def test_a_run_does_not_go_on_from_another_in_place_of_its_own(tmp_path: Path) -> None:
    (own,) = written(tmp_path / "run", 8)
    other, _ = written(tmp_path / "other", 16, 24)
    for resume in (other, tmp_path / "other"):
        with pytest.raises(SettingError, match=f"resume={resume}, but output_dir=.*run has a checkpoint of step 8 of "):
            decide(str(resume), None, tmp_path / "run", restarted=False)
    assert decide(str(other), None, tmp_path / "run", restarted=True)["path"] == str(own)
    assert decide(str(other), None, tmp_path / "other", restarted=False)["path"] == str(other)


def test_what_another_version_wrote_stays(command: CommandLine, tmp_path: Path) -> None:
    assert command(*TINY, f"output_dir={tmp_path}").status == 0
    for path in (tmp_path / "checkpoints").iterdir():
        modernise(path)
    before = {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}
    outcome = command(*TINY, f"output_dir={tmp_path}")
    assert outcome.status == 2 and f"has format {FORMAT + 1}, but this version" in outcome.err
    assert {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()} == before


def test_the_model_of_a_run_without_checkpoints_stays(tmp_path: Path) -> None:
    RunDirectory(tmp_path).model.write_bytes(b"")
    for resume in ("auto", "never"):
        with pytest.raises(SettingError, match=f"output_dir={tmp_path} has the model of a run that has ended, but no"):
            decide(resume, None, tmp_path, restarted=False)


def test_two_beginnings(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="init_from=a.safetensors and resume=other both say what to begin with"):
        decide("other", "a.safetensors", None, restarted=False)


def test_another_run_keeps_its_tracker(tmp_path: Path) -> None:
    (own,) = written(tmp_path / "run", 8)
    assert decide("auto", None, tmp_path / "run", restarted=False)["own"]
    assert decide(str(own), None, tmp_path / "run", restarted=False)["own"]
    assert not decide(str(own), None, tmp_path / "new", restarted=False)["own"]
