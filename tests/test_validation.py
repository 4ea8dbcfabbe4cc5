"""A run that holds validation images out says so wherever it names an accuracy, and never looks at the test images."""

import json
import sys
from pathlib import Path

import pytest

import trainer.evaluate
from tests.command_line import TINY, CommandLine


def test_a_run_on_validation_images(command: CommandLine, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    sizes = ("dataset.validation=24", "dataset.test_size=1")
    done = command(*TINY, *sizes, "epochs=3", "eval.every_epochs=2", f"output_dir={run}")
    assert done.status == 0, done.err
    assert "40 training and 24 validation images" in done.out
    assert "validation accuracy %" in done.out and "validation accuracy of" in done.out
    assert "test" not in done.out.replace(str(run), "")
    epochs = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    *epochs, summary = [record for record in epochs if record["kind"] != "step"]
    accuracies = {epoch["epoch"]: epoch["test"]["accuracy"] for epoch in epochs if "test" in epoch}
    assert accuracies.keys() == {2, 3}  # every second epoch, and the last
    assert all(round(24 * accuracy, 6).is_integer() for accuracy in accuracies.values())
    assert summary["tested_on"] == "validation"
    assert (summary["test_accuracy"], summary["best_test_accuracy"]) == (accuracies[3], max(accuracies.values()))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["trainer.evaluate", str(run)])
        trainer.evaluate.main()
    again = capsys.readouterr().out
    assert again.startswith("validation accuracy of\n") and again.strip() in done.out
