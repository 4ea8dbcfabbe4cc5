"""What can't be written costs a warning, never the training."""

import os
import shutil
import threading
import time
from pathlib import Path

import pytest

from tests.command_line import TINY, CommandLine


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


def test_a_disk_without_room_for_metrics(command: CommandLine, tmp_path: Path) -> None:
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
    assert (run / "model.safetensors").is_file()
    assert (run / "checkpoints/step-00000240/manifest.json").is_file()
    assert "was removed while the run writes it" in outcome.out
