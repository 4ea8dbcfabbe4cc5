"""What the terminal and the log show, in 80 columns."""

import contextlib
import io
import math
import os
from pathlib import Path

import pytest

from tests.reporting.test_board import epoch_part, facts, sums
from trainer.reporting.console import Console, EpochTable, partition_table, summary_lines
from trainer.reporting.board import _epoch, summarize
from trainer.reporting.records import Record
from trainer.reporting.tables import exit_lines, mebibytes, short, table


def epoch_record(blocks: int, tested: bool = True) -> Record:
    scores = {"train": sums(23.456, 1.0, 10.0), "test": sums(10.0, 10.0, 10.0) if tested else None}
    lap = epoch_part(0, 1.0)["lap"]
    parts = [{"blocks": {str(index): scores}, "lap": lap} for index in range(blocks)]
    return {"kind": "epoch", "step": 10, "epoch": 100, **_epoch(parts, 8)}


def test_four_blocks_fit_80_columns() -> None:
    lines = EpochTable(facts((0, 1, 2, 3)))
    for line in (*lines.header(), lines.row(epoch_record(4))):
        assert len(line) <= 80
    assert lines.row(epoch_record(4)).split()[1:] == ["20", *["2.346"] * 4, *["100.0"] * 4, *["50"] * 4]


def test_an_epoch_without_a_test_has_no_accuracy() -> None:
    row = EpochTable(facts((0, 1))).row(epoch_record(2, tested=False))
    assert row.split()[1:] == ["20", "2.346", "2.346", "-", "-", "50", "50"]


@pytest.mark.parametrize(("held_out", "images"), [(0, "test"), (500, "validation")])
def test_accuracies_say_on_which_images(held_out: int, images: str) -> None:
    run = facts()
    run.config["dataset"] = {"validation": held_out}
    assert f" {images} accuracy %" in EpochTable(run).header()[0]
    record = summarize([epoch_record(2)], run, left_out_steps=5)
    assert summary_lines(record, run)[0] == f"{images} accuracy of"


def test_titles_stand_over_their_numbers() -> None:
    for owners in ((0,), (0, 0, 1), (0, 1, 2, 3, 4, 5)):
        lines = EpochTable(facts(owners))
        _, numbers = lines.header()
        assert len(numbers) == len(
            lines.row(epoch_record(len(owners)) | {"ranks": epoch_record(owners[-1] + 1)["ranks"]})
        )


def test_the_partition_table() -> None:
    assert partition_table(facts().partition) == [
        "block  rank  units  parameters  classifier  cost",
        "    0     0  unit0           1           1  50 %",
        "    1     1  unit1           1           1  50 %",
    ]


def test_the_log_has_what_the_terminal_shows(tmp_path: Path) -> None:
    stream = io.StringIO()
    console = Console(tmp_path / "console.log", stream)
    console.start(facts())
    console.step({"step": 1, "blocks": []})
    console.epoch(epoch_record(2))
    console.epoch(epoch_record(2))
    console.warning("rank 1: hot")
    console.summary(
        {
            "tested_on": "test",
            "exit_accuracies": [0.5, 0.75],
            "cut_points": ["unit0"],
            "best_test_accuracy": 0.8,
            "test_accuracy": 0.75,
            "images_per_second": 12.3,
            "left_out_steps": 5,
            "pipeline_efficiency": 0.91,
            "image_wait": 0.031,
            "note": "",
        }  # fmt: skip
    )
    console.close(False)
    text = (tmp_path / "console.log").read_text()
    assert text == stream.getvalue()
    assert text.count("warning: 25.0 % of a rank's time is waiting for images; more dataset.workers") == 1
    for piece in (
        "how it runs",
        "warning: rank 1: hot",
        "early exit after unit0  50.00 %",
        "best epoch 80.00 %, last epoch 75.00 %",
        "3.1 % of a rank's time is waiting for images",
    ):
        assert piece in text
    assert (
        "12 images per second after the first 5 steps\npipeline efficiency 91 %" in text
        and "run directory: run" in text
    )


def test_tables_and_units() -> None:
    assert table([["a", "b"], ["long", "1"]], left={0}) == ["a     b", "long  1"]
    assert mebibytes(3 * 2**20) == "3.0 MiB"
    assert exit_lines([], [0.5], "test") == ["test accuracy of", "  the whole model  50.00 %"]


@pytest.mark.parametrize(
    ("loss", "shown"),
    [
        (0.12345, "0.123"), (12.345, "12.35"), (123.456, "123.5"), (1234.5, "1234"), (5.6e17, "6e17"),
        (math.inf, "inf"), (math.nan, "nan"), (None, "-"),
    ],
)  # fmt: skip
def test_a_loss_leaves_room_for_its_neighbor(loss: float | None, shown: str) -> None:
    assert short(loss) == shown


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_terminal_with_a_live_view_that_has_gone_ends_nothing(tmp_path: Path) -> None:
    """What redraws the view, a thread, ends; nothing else does."""
    terminal, end = os.openpty()
    with open(end, "w") as stream:
        console = Console(tmp_path / "console.log", stream)
        console.start(facts())
        os.close(terminal)
        console.warning("hot")
        console.close(False)
        with contextlib.suppress(OSError):
            stream.close()
    assert (tmp_path / "console.log").read_text().endswith("\nwarning: hot\n")


def test_a_terminal_that_has_gone_ends_nothing(tmp_path: Path) -> None:
    with open("/dev/full", "w") as full:
        console = Console(tmp_path / "console.log", full)
        console.warning("hot")
        console.close(False)
        with contextlib.suppress(OSError):
            full.close()
    assert (tmp_path / "console.log").read_text() == "warning: hot\n"
