"""How the scripts read their command lines."""

import argparse
import importlib
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[2] / "scripts"


@pytest.fixture(autouse=True)
def scripts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(SCRIPTS))


def test_settings_of_the_trainer_may_stand_anywhere() -> None:
    jobs = importlib.import_module("jobs")
    parser = argparse.ArgumentParser()
    parser.add_argument("--models", nargs="+")
    parser.add_argument("--report")
    words = ["a.b=1", "--models", "x", "y", "local_loss@local_loss.base=dgl", "--report=docs/z", "+new=2"]
    options = jobs.parsed(parser, words)
    assert options.models == ["x", "y"] and options.report == "docs/z"
    assert options.overrides == ["a.b=1", "local_loss@local_loss.base=dgl", "+new=2"]


@pytest.mark.parametrize(
    ("script", "arguments", "said"),
    [
        ("benchmark", ["--ranks", "0"], "argument --ranks: 0 must be at least 1"),
        ("benchmark", ["--sleep", "--batch-size", "256"], "--batch-size has no use with --sleep"),
        ("benchmark", ["--microbatches", "2"], "--microbatches has no use with real models"),
        ("compare", ["--rounds", "0"], "argument --rounds: 0 must be at least 1"),
        ("compare", ["dgl"], "dgl is no NAME=VALUE"),
        ("chaos", ["--kills", "-1"], "argument --kills: -1 must be at least 1"),
        ("chaos", ["--folder", str(SCRIPTS)], "is not empty"),
        ("accuracy", ["--data", "nowhere.npz"], "--data nowhere.npz is no file"),
        ("step_time", ["--steps", "0"], "argument --steps: 0 must be at least 1"),
        ("checkpoint_cost", ["--checkpoints", "0"], "argument --checkpoints: 0 must be at least 1"),
    ],
)
def test_wrong_options_end_before_anything_runs(
    script: str, arguments: list[str], said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", [script, *arguments])
    with pytest.raises(SystemExit) as ended:
        importlib.import_module(script).main()
    assert ended.value.code == 2 and said in capsys.readouterr().err
