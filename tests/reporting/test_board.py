"""Rank 0 puts the parts of ranks that are never at the same step together."""

from pathlib import Path

import pytest
import torch.distributed as dist

from trainer.partition.cost import Costs
from trainer.partition.partition import BlockPlan, Partition
from trainer.reporting.board import Board, summarize
from trainer.reporting.records import Record, RunFacts
from trainer.transport.control import Control


def facts(owners: tuple[int, ...] = (0, 1), note: str = "") -> RunFacts:
    blocks = [BlockPlan([f"unit{index}"], 1, 1, 0.5, owner) for index, owner in enumerate(owners)]
    partition = Partition([f"unit{index}" for index in range(len(owners) - 1)], "by hand", blocks, Costs({}, {}, {}))
    config, ranks = {"dataset": {}}, max(owners) + 1
    return RunFacts(Path("run"), config, partition, partition.cut_points, ranks, 8, 2, 10, 20, ["how it runs"], note)


class Recorder:
    """A listener that remembers."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, object]] = []

    def start(self, run: RunFacts) -> None:
        self.seen.append(("start", run))

    def step(self, record: Record) -> None:
        self.seen.append(("step", record))

    def epoch(self, record: Record) -> None:
        self.seen.append(("epoch", record))

    def summary(self, record: Record) -> None:
        self.seen.append(("summary", record))

    def warning(self, text: str) -> None:
        self.seen.append(("warning", text))

    def close(self, failed: bool) -> None:
        self.seen.append(("close", None))


def sums(loss: float, right: float, seen: float, **terms: float) -> dict[str, float]:
    return {"loss": loss, "right": right, "seen": seen, **terms}


def part(step: int, block: int, loss: float, seen: float = 8, busy: float | None = 1.5) -> Record:
    blocks = {str(block): {"train": sums(loss * seen, seen / 2, seen), "learning_rate": 0.1}}
    lap = {"seconds": 2.0, "busy_seconds": busy, "steps": 5}
    return {"kind": "step", "step": step, "epoch": 1, "blocks": blocks, "lap": lap}


def epoch_part(block: int, busy: float, test: float | None = 0.75) -> Record:
    scores = {
        "train": sums(8.0, 4.0, 8.0, loss_label=2.0),
        "test": None if test is None else sums(8.0, 4.0 * test, 4.0),
    }
    lap = {
        "seconds": 2.0, "busy_seconds": busy, "wait_seconds": 2.0 - busy, "image_wait_seconds": 0.5, "steps": 5,
        "peak_memory_bytes": 7,
    }  # fmt: skip
    return {"kind": "epoch", "step": 10, "epoch": 1, "blocks": {str(block): scores}, "lap": lap}


def collected(
    *posts: tuple[int, Record], owners: tuple[int, ...] = (0, 1)
) -> tuple[list[tuple[str, object]], list[Record]]:
    store, ranks = dist.HashStore(), max(owners) + 1
    controls = [Control(store, rank, ranks) for rank in range(ranks)]
    recorder = Recorder()
    board = Board(controls[0], [recorder], facts(owners))
    for rank, record in posts:
        controls[rank].post(record)
    for control in controls:
        control.post({"kind": "end"})
    epochs = board.finish()
    board.close(False)
    return recorder.seen[1:-1], epochs


def test_a_step_is_told_when_its_last_part_is_there() -> None:
    seen, _ = collected((0, part(10, 0, 1.0)), (0, part(20, 0, 2.0)), (1, part(10, 1, 3.0)), (1, part(20, 1, 4.0)))
    assert [(kind, record["step"], [block["loss"] for block in record["blocks"]]) for kind, record in seen] == [
        ("step", 10, [1.0, 3.0]),
        ("step", 20, [2.0, 4.0]),
    ]


def test_an_epoch_has_every_block_and_every_rank() -> None:
    seen, epochs = collected((1, epoch_part(1, 1.0)), (0, epoch_part(0, 1.9)))
    (record,) = epochs
    assert seen == [("epoch", record)]
    assert record["test"] == {"blocks": [{"loss": 2.0, "accuracy": 0.75}] * 2, "accuracy": 0.75}
    assert record["train"]["blocks"] == [{"loss": 1.0, "accuracy": 0.5, "loss_label": 0.25}] * 2
    assert record["images_per_second"] == 5 * 8 / 2.0
    waits = {"wait_seconds": pytest.approx(0.1), "image_wait_seconds": 0.5}
    rank = {"busy_seconds": 1.9, **waits, "steps": 5, "peak_memory_bytes": 7}
    assert record["ranks"][0] == rank


def test_blocks_of_one_rank_come_in_order() -> None:
    both = part(1, 0, 1.0)
    both["blocks"] |= part(1, 1, 2.0)["blocks"]
    seen, _ = collected((0, both), owners=(0, 0))
    assert [block["loss"] for block in seen[0][1]["blocks"]] == [1.0, 2.0]


def test_copies_of_a_block_are_put_together_by_the_images_they_saw() -> None:
    seen, _ = collected((0, part(10, 0, 1.0, seen=6)), (1, part(10, 0, 3.0, seen=2)))
    ((_, record),) = seen
    assert record["blocks"] == [{"loss": 1.5, "accuracy": 0.5, "learning_rate": 0.1, "busy": 0.75}]
    assert record["images_per_second"] == 5 * 8 / 2


def test_a_rank_without_a_loss_still_counts() -> None:
    silent = {**part(10, 0, 1.0), "blocks": {}}
    seen, _ = collected((0, silent), (1, part(10, 0, 3.0, busy=None)))
    assert [block["busy"] for block in seen[0][1]["blocks"]] == [None]


def test_warnings_name_their_rank() -> None:
    seen, _ = collected((1, {"kind": "warning", "text": "hot"}))
    assert seen == [("warning", "rank 1: hot")]


def test_the_summary_by_hand() -> None:
    _, (first,) = collected((1, epoch_part(1, 1.0, 0.5)), (0, epoch_part(0, 1.5, 0.9)))
    _, (second,) = collected((1, epoch_part(1, 1.0, 0.25)), (0, epoch_part(0, 1.9, 0.9)))
    summary = summarize([first, second], facts(), left_out_steps=5)
    assert (summary["best_test_accuracy"], summary["test_accuracy"]) == (0.5, 0.25)
    assert summary["exit_accuracies"] == [0.9, 0.25]
    assert summary["images_per_second"] == 10 * 8 / 4.0
    busy = 1.5 + 1.9  # of rank 0, in two laps of 2 s each
    assert summary["pipeline_efficiency"] == pytest.approx(busy / 4.0)
    assert summary["image_wait"] == 0.25


def test_no_efficiency_is_claimed_where_ranks_share_cores() -> None:
    _, (record,) = collected((1, epoch_part(1, 1.0)), (0, epoch_part(0, 1.5)))
    assert summarize([record], facts(note="shared"), 5)["pipeline_efficiency"] is None


@pytest.mark.parametrize(("count", "images"), [(0, "test"), (5000, "validation")])
def test_the_summary_says_which_images_it_was_tested_on(count: int, images: str) -> None:
    _, (epoch,) = collected((1, epoch_part(1, 1.0)), (0, epoch_part(0, 1.5)))
    run = facts()
    run.config["dataset"] = {"validation": count}
    assert summarize([epoch], run, left_out_steps=5)["tested_on"] == images
