"""On CUDA a loss is seen some steps after its computation; no checkpoint is made of what came after a bad one."""

import re
from pathlib import Path

import pytest

import trainer.losswatch
from tests.command_line import TINY, CommandLine
from trainer.checkpoint.reader import newest
from trainer.hostcopy import HostCopy


class Late(HostCopy):
    """Has never arrived before somebody waits for it, as on a GPU that is busy."""

    def ready(self) -> bool:
        return False


def test_nothing_after_a_bad_loss_is_kept(
    command: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run is shorter than the lag: its last checkpoint too is due before the bad loss has been seen."""
    monkeypatch.setattr(trainer.losswatch, "HostCopy", Late)
    settings = ("checkpoint.every_steps=1", "max_steps=10", "optimizer.lr=1e12", "scheduler=constant")
    outcome = command(*TINY, *settings, f"output_dir={tmp_path}")
    assert outcome.status == 1
    bad = re.search(r"error: the loss of block \d .* became \w+ at step (\d+)", outcome.err)
    assert bad is not None and 1 < int(bad[1]) < 10
    kept, _ = newest(tmp_path / "checkpoints")
    assert kept is not None and 1 <= kept.manifest.step < int(bad[1])
    weights = [kept.read(name) for name in kept.names() if name.endswith(".weight") and "optimizer." not in name]
    assert weights and all(weight.isfinite().all() for weight in weights)


def test_skipped_steps_are_no_reason_to_keep_nothing(
    command: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainer.losswatch, "HostCopy", Late)
    settings = ("max_steps=10", "optimizer.lr=1e12", "scheduler=constant", "on_nan=skip")
    assert command(*TINY, *settings, f"output_dir={tmp_path}").status == 0
    kept, _ = newest(tmp_path / "checkpoints")
    assert kept is not None and kept.manifest.step == 10
