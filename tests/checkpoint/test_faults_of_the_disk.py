"""What can't be written costs a warning, never the training."""

import errno
import os
import resource
import shutil
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

import trainer.checkpoint.collector
from tests.command_line import TINY, CommandLine, assert_one_sentence
from trainer.files import write_whole


def when(path: Path, act: object) -> threading.Thread:
    """Do something as soon as a file is there."""

    def wait() -> None:
        end = time.monotonic() + 60
        while not path.exists() and time.monotonic() < end:
            time.sleep(0.001)
        act()  # type: ignore[operator]

    thread = threading.Thread(target=wait)
    thread.start()
    return thread


ROOT = Path(__file__).parents[2]

WITHOUT_PRIVILEGE = ("setpriv", "--bounding-set=-dac_override,-dac_read_search")
"""Before a command: permissions hold, even for root."""

SMALL_DISK = ("unshare", "-Urm", "sh", "-c", 'mount -t tmpfs -o size=500k none "$0" && exec "$@"')
"""Before a directory and a command: the directory has room for two checkpoints of ``TINY``."""


def works(*command: str) -> bool:
    """Whether a command can be run here."""
    return shutil.which(command[0]) is not None and subprocess.run(command, capture_output=True).returncode == 0


def train(run: Path, *settings: str, before: tuple[str, ...]) -> subprocess.CompletedProcess[str]:
    """A process of its own, started by a command before it."""
    command = [*before, sys.executable, "-m", "trainer.main", *TINY, *settings, f"output_dir={run}"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HYDRA_FULL_ERROR": "0"}
    return subprocess.run(command, env=environment, capture_output=True, text=True)


def test_a_model_that_cant_be_written_costs_only_the_end(command: CommandLine, tmp_path: Path) -> None:
    run, whole = tmp_path / "run", tmp_path / "whole"
    (run / "model.safetensors").mkdir(parents=True)
    outcome = command(*TINY, f"output_dir={run}")
    assert_one_sentence(outcome, f"output_dir={run}: model.safetensors could not be written: Is a directory; mend that")
    (run / "model.safetensors").rmdir()
    again = command(*TINY, f"output_dir={run}")
    assert again.status == 0 and "goes on after step 24" in again.out, again.err
    assert command(*TINY, f"output_dir={whole}").status == 0
    assert (run / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()


def test_checkpoints_that_can_not_be_written(command: CommandLine, tmp_path: Path) -> None:
    """A file stands where the folder of the checkpoint of step 16 has to be: whoever runs the tests, even root, can't
    write there."""
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "step-00000016").write_text("in the way")
    outcome = command(*TINY, f"output_dir={tmp_path}")
    assert outcome.status == 0
    assert "warning: there is no checkpoint of step 16: " in outcome.out
    assert "rank-0.safetensors could not be written: " in outcome.out
    assert "training goes on, and the checkpoint before it stays" in outcome.out
    whole = [path.parent.name for path in tmp_path.glob("checkpoints/*/manifest.json")]
    assert sorted(whole) == ["step-00000008", "step-00000024"]


def test_a_folder_that_cant_be_looked_into_costs_no_checkpoint(
    command: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where a network's disk does not answer for a moment."""

    def unanswered(checkpoints: Path) -> list[tuple[int, Path]]:
        if list(checkpoints.glob("*/manifest.json")):
            raise OSError(errno.EIO, "Input/output error")
        return []

    monkeypatch.setattr(trainer.checkpoint.collector, "folders", unanswered)
    outcome = command(*TINY, f"output_dir={tmp_path}")
    assert outcome.status == 0
    assert "checkpoints before step 16 could not be removed: Input/output error; training goes on" in outcome.out
    assert len(list(tmp_path.glob("checkpoints/*/manifest.json"))) == 3


def test_a_disk_without_room_for_the_log(command: CommandLine, tmp_path: Path) -> None:
    if not os.path.exists("/dev/full"):
        pytest.skip("no /dev/full here")
    (tmp_path / "console.log").symlink_to("/dev/full")
    outcome = command(*TINY, f"output_dir={tmp_path}")
    assert outcome.status == 0, outcome.err
    assert "console.log can't be written: No space left on device; training goes on" in outcome.out
    assert (tmp_path / "model.safetensors").is_file()


def test_a_removed_run_directory(command: CommandLine, tmp_path: Path) -> None:
    run = tmp_path / "run"
    thread = when(run / "checkpoints/step-00000008/manifest.json", lambda: shutil.rmtree(run, ignore_errors=True))
    outcome = command(*TINY, f"output_dir={run}", "epochs=30")
    thread.join()
    assert outcome.status == 0, outcome.err
    assert all((run / name).is_file() for name in ("model.safetensors", "config.yaml", "partition.json", "console.log"))
    assert (run / "checkpoints/step-00000240/manifest.json").is_file()
    assert "was removed while the run writes it" in outcome.out


@pytest.mark.skipif(not works(*SMALL_DISK, "/mnt", "true"), reason="no file system can be mounted here")
def test_a_disk_that_gets_full(tmp_path: Path) -> None:
    """The last checkpoint does not fit and makes room for the model, and what is on the disk is whole."""
    look = ("sh", "-c", '"$@"; echo "status $?"; cd "$0" && find . -type f -printf " %p\\n"', str(tmp_path))
    shown = train(tmp_path, "checkpoint.keep=9", before=(*SMALL_DISK, str(tmp_path), *look)).stdout
    assert "status 0" in shown, shown
    assert "there is no checkpoint of step 24: " in shown
    assert "No space left on device; training goes on, and the checkpoint before it stays" in shown
    files = {line.split(" ./")[1] for line in shown.splitlines() if " ./" in line}
    assert {f"checkpoints/step-00000016/{name}" for name in ("manifest.json", "rank-0.safetensors")} <= files
    assert "model.safetensors" in files
    assert not [name for name in files if name.endswith(".tmp") or "step-00000024" in name]


@pytest.mark.skipif(not works(*WITHOUT_PRIVILEGE, "true"), reason="no setpriv here")
@pytest.mark.parametrize("place", ["run", "run/inner", "run/checkpoints"])
def test_a_directory_without_permission(place: str, tmp_path: Path) -> None:
    """Where nothing can be written at all that is one sentence; where only checkpoints can't, it is a warning."""
    run = tmp_path / "run"
    closed = tmp_path / place if place == "run/checkpoints" else run
    closed.mkdir(parents=True)
    closed.chmod(stat.S_IRUSR | stat.S_IXUSR)
    ended = train(run if place == "run/checkpoints" else tmp_path / place, before=WITHOUT_PRIVILEGE)
    closed.chmod(stat.S_IRWXU)
    if place == "run/checkpoints":
        assert ended.returncode == 0 and (run / "model.safetensors").is_file()
        assert ended.stdout.count("rank-0.safetensors could not be written: Permission denied; training goes on") == 3
    else:
        wrong = "can't be made" if place == "run/inner" else "can't be written"
        assert ended.returncode == 2
        assert ended.stderr == f"error: output_dir={tmp_path / place} {wrong}: Permission denied\n"
        assert not list(run.iterdir())


def test_files_are_made_with_the_users_umask(command: CommandLine, tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        assert command(*TINY, f"output_dir={tmp_path}/run").status == 0
    finally:
        os.umask(before)
    modes = {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "run").rglob("*") if path.is_file()}
    folders = {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "run").rglob("*") if path.is_dir()}
    assert (modes, folders) == ({0o640}, {0o750})


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    file = tmp_path / "file"
    write_whole(file, b"old")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(OSError, match="File too large") as raised:
            write_whole(file, bytes(2000))
        assert raised.value.filename == str(file)  # so that people read a sentence
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [path.name for path in tmp_path.iterdir()] == ["file"] and file.read_bytes() == b"old"
