"""What the scripts make of the records of a run, by hand."""

import argparse
import importlib
import json
from pathlib import Path
from typing import Any

import pytest

SCRIPTS = Path(__file__).parents[2] / "scripts"


@pytest.fixture(autouse=True)
def scripts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(SCRIPTS))


def result(rate: float | None, *accuracies: float | None) -> Any:
    """A job that trained so many images a second, with the test accuracy of each epoch of ten steps, None without a
    test."""
    jobs = importlib.import_module("jobs")
    epochs: list[dict[str, Any]] = [
        {
            "kind": "epoch", "epoch": number, "step": 10 * number, "train": {"blocks": [{"loss": 0.5}, {"loss": 0.25}]},
            "ranks": [
                {"busy_seconds": 3.0, "wait_seconds": 1.0, "peak_memory_bytes": 2**20},
                {"busy_seconds": 1.0, "wait_seconds": 1.0, "peak_memory_bytes": 2**21},
            ],
        }
        for number in range(1, len(accuracies) + 1)
    ]  # fmt: skip
    for epoch, accuracy in zip(epochs, accuracies, strict=True):
        if accuracy is not None:
            epoch["test"] = {"accuracy": accuracy, "blocks": [{"accuracy": accuracy / 2}, {"accuracy": accuracy}]}
    return jobs.Result([*epochs, {"kind": "summary", "images_per_second": rate, "steps": 10 * len(accuracies)}])


def test_a_result_reads_what_a_job_left(tmp_path: Path) -> None:
    jobs = importlib.import_module("jobs")
    written = result(120.0, None, 0.5)
    (tmp_path / "metrics.jsonl").write_text("\n".join(map(json.dumps, written.records)))
    read = jobs.Result.read(tmp_path)
    assert read == written and read.images_per_second == 120.0
    assert read.busy_shares == [0.75, 0.5]
    with pytest.raises(jobs.JobError, match="10 steps are too few to be timed"):
        _ = result(None, 0.5).images_per_second


def test_spread_is_the_median_and_the_range() -> None:
    jobs = importlib.import_module("jobs")
    assert jobs.spread([3.0, 1.0, 2.0], ".1f") == "2.0 (1.0 to 3.0)" and jobs.spread([1.0], ".2f") == "1.00"


def test_a_shown_command_names_no_folder_of_this_machine() -> None:
    jobs = importlib.import_module("jobs")
    words = ["--work", "/w", "--ranks", "2", "--report=/r/x.md", "a.b=/w", "--report", "x"]
    assert jobs.shown(words, "--work", "--report") == "--ranks 2 a.b=/w"


@pytest.fixture
def comparison(tmp_path: Path) -> Any:
    report = importlib.import_module("comparison_report")
    rates = {"ppll": [200.0, 180.0, 220.0], "sequential": [100.0] * 3, "backprop": [80.0] * 3, "ddp": [120.0] * 3,
             "pipeline": [160.0, 90.0, 110.0]}  # fmt: skip
    results = {engine: [result(rate, None, 0.6, 0.95) for rate in values] for engine, values in rates.items()}
    return report.Comparison("resnet32", [], "1f1b", 4, results, {engine: tmp_path for engine in rates})


def test_ratios_are_of_rounds_and_efficiency_is_of_one_process(comparison: Any) -> None:
    report = importlib.import_module("comparison_report")
    assert comparison.ratios("ppll", "pipeline") == [1.25, 2.0, 2.0]
    assert report._efficiency(comparison, "ppll", 2) == pytest.approx(1.0)  # 200 of twice 100
    assert report._efficiency(comparison, "pipeline", 2) == pytest.approx(110 / 160)  # of twice backpropagation's 80
    assert report._theory(comparison, "ppll", 2) == 1.0
    assert report._theory(comparison, "pipeline", 2) == pytest.approx(3 / (3 + 3 / 4))


def test_the_time_to_an_accuracy_is_at_the_steady_speed(comparison: Any) -> None:
    report = importlib.import_module("comparison_report")
    assert report._time_to(result(200.0, None, 0.6, 0.95), 0.9, 64) == "9.6"  # 30 steps of 64 images
    assert report._time_to(result(200.0, 0.6, 0.8), 0.9, 64) == ""


def test_a_time_that_no_run_has_is_no_column(comparison: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    report = importlib.import_module("comparison_report")
    monkeypatch.setattr(report, "_bytes_an_image", lambda *arguments: 0.0)  # these jobs left no folder
    reached, never = (
        report._table(comparison, argparse.Namespace(accuracy=accuracy, batch_size=64)) for accuracy in (0.9, 0.99)
    )
    assert "| s to 90 % |" in reached[0] and reached[2].endswith("| 0.250 | 9.6 |")
    assert "s to" not in never[0] and never[2].endswith("| 0.250 |")
    assert never[-1].startswith("No run reached a test accuracy of 99 %")
    assert all(row.count("|") == table[0].count("|") for table in (reached, never[:-2]) for row in table)


def test_every_schedule_has_a_row(comparison: Any) -> None:
    report = importlib.import_module("comparison_report")
    comparison.tried.extend([("gpipe", 2, 99.6), ("gpipe", 4, 120.0), ("1f1b", 4, 130.0)])
    assert report._schedules(comparison)[2:] == ["| gpipe | 100 | 120 |", "| 1f1b | - | 130 |"]


def test_accuracy_reports_the_last_epoch_and_the_best(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    accuracy, np = importlib.import_module("accuracy"), importlib.import_module("numpy")
    np.savez(tmp_path / "small.npz", y_test=np.zeros(2500, np.int64))
    monkeypatch.setattr("sys.argv", ["accuracy.py", "--data", str(tmp_path / "small.npz"), "--report", "x.md"])
    options = argparse.Namespace(
        data=tmp_path / "small.npz", model="resnet32", epochs=2, points="a,b", seeds=[0, 1], report=Path("x.md"),
        overrides=[],
    )  # fmt: skip
    curves = {"dgl": [result(1.0, 0.9, 0.8).of_kind("epoch"), result(1.0, 0.5, 0.6).of_kind("epoch")]}
    text = accuracy.report(curves, options)
    assert "| dgl | 30.00 ± 14.14 | 25.00 ± 21.21 | 65.0 / 30.0 |" in text
    assert "python scripts/accuracy.py --data small.npz\n" in text and str(tmp_path) not in text
    assert "2,500 test images" in text and "standard error of 0.8 points" in text


def test_a_kill_before_the_first_checkpoint_costs_all_that_was_done(tmp_path: Path) -> None:
    chaos = importlib.import_module("chaos")
    (tmp_path / "console.log").write_text("goes on after step 10, from a\nstep\ngoes on after step 25, from b\n")
    report = chaos.Report(0, 2, 40, [f"  killed rank 0 after step {step}, between" for step in (3, 12, 27)])
    chaos.count_resumes(argparse.Namespace(directory=tmp_path), report)
    assert (report.resumes, report.repeated) == (2, 3 + 2 + 2)
