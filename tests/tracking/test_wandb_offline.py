"""W&B, for real and offline."""

import logging
from dataclasses import replace
from pathlib import Path

import pytest

from tests.conftest import Compose
from tests.reporting.test_board import facts
from trainer.errors import SettingError
from trainer.reporting.records import RunFacts
from trainer.tracking.wandb import WandbTracker


def facts_in(path: Path) -> RunFacts:
    run = facts()
    return replace(run, directory=path)


@pytest.fixture(autouse=True)
def no_key(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("WANDB_API_KEY", "WANDB_PROJECT", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("NETRC", str(tmp_path / "home" / "netrc"))


def test_without_a_key_the_run_is_offline_and_complete(tmp_path: Path) -> None:
    tracker = WandbTracker("ppll")
    tracker.start(facts_in(tmp_path))
    assert tracker._run is not None and tracker._run.offline
    block = {"loss": 1.0, "accuracy": 0.5, "loss_label": 0.7, "learning_rate": 0.1, "busy": 1.0}
    tracker.step({"step": 10, "epoch": 1, "blocks": [block] * 2})
    assert tracker._run.summary["block1/loss"] == 1.0 and tracker._run.summary["step"] == 10
    assert tracker._run.summary["block0/loss_label"] == 0.7
    tracker.summary({"kind": "summary", "test_accuracy": 0.75, "note": ""})
    assert tracker._run.summary["test_accuracy"] == 0.75
    tracker.close(False)
    assert list((tmp_path / "wandb").glob("offline-run-*/*.wandb"))


@pytest.mark.parametrize("failed", [False, True])
def test_a_failed_run_is_one_for_wandb_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failed: bool) -> None:
    tracker, codes = WandbTracker("ppll"), []
    tracker.start(facts_in(tmp_path))
    finish = tracker._run.finish

    def spied(exit_code: int) -> None:
        codes.append(exit_code)
        finish(exit_code)

    monkeypatch.setattr(tracker._run, "finish", spied)
    tracker.close(failed)
    assert codes == [int(failed)]


def test_a_failure_of_wandb_is_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tracker = WandbTracker("a/project/name/that/is/not/allowed")
    with caplog.at_level(logging.WARNING):
        tracker.start(facts_in(tmp_path))
    assert "W&B failed, the run goes on without it" in caplog.text
    tracker.step({"step": 1, "blocks": []})
    tracker.close(False)


def test_wandbs_own_variables_count(configured: Compose, monkeypatch: pytest.MonkeyPatch) -> None:
    assert {key: configured("tracker=wandb")["tracker"][key] for key in ("project", "mode")} == {
        "project": "ppll",
        "mode": "auto",
    }
    monkeypatch.setenv("WANDB_PROJECT", "mine")
    monkeypatch.setenv("WANDB_MODE", "disabled")
    config = configured("tracker=wandb")["tracker"]
    assert (config["project"], config["mode"]) == ("mine", "disabled")


def test_a_disabled_tracker_writes_nothing(tmp_path: Path) -> None:
    tracker = WandbTracker("ppll", mode="disabled")
    tracker.start(facts_in(tmp_path))
    tracker.step({"step": 1, "blocks": []})
    tracker.close(False)
    assert not (tmp_path / "wandb").exists()


def test_an_unknown_mode_is_refused() -> None:
    with pytest.raises(SettingError, match="tracker.mode=sometimes is unknown; it is auto, online, offline, disabled"):
        WandbTracker("ppll", mode="sometimes")
