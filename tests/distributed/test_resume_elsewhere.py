"""One run that goes on from other ranks again and again ends in the weights of a run that never stopped."""

from pathlib import Path

from tests.distributed.conftest import TINY, Job
from tests.distributed.test_identity import assert_identical, epochs, weights

LOSSES = "local_loss=dgl,man"
"""The second one exchanges weights with its neighbors."""

SETTINGS = (
    *TINY, "model=vit_tiny", "model.depth=4", "model.width=48", "model.dropout=0.1", "optimizer=adamw",
    "dataset.mixup=0.2", "update.average=0.9", "partition.points=[encoder.0,encoder.2]", "hydra.sweep.dir=moved",
)  # fmt: skip


def test_other_ranks_go_on_bit_for_bit(forked: Job, forked_alone: Job, tmp_path: Path) -> None:
    sweep = ("--multirun", *SETTINGS, LOSSES)
    stages = [
        forked(3, tmp_path, *sweep, "max_steps=3"),
        forked_alone(tmp_path, *sweep, "max_steps=5", "engine=sequential"),
        forked(2, tmp_path, *sweep),
        forked_alone(tmp_path, *sweep, "engine=sequential", "hydra.sweep.dir=whole"),
    ]
    assert [stage.status for stage in stages] == [0] * 4, [stage.err for stage in stages]
    for number in range(2):
        moved, whole = tmp_path / "moved" / str(number), tmp_path / "whole" / str(number)
        log = (moved / "console.log").read_text()
        assert "goes on after step 3, " in log and "goes on after step 5, " in log
        assert_identical(weights(moved), weights(whole))
        assert [epoch["train"] for epoch in epochs(moved)] == [epoch["train"] for epoch in epochs(whole)]

    # The same ranks, cut elsewhere: the units go on, the new cut's classifier begins.
    other = ("partition.points=[encoder.1,encoder.2]", "epochs=3", "resume_strict=false")
    cut = forked(2, tmp_path, "--multirun", *SETTINGS, LOSSES, *other)
    assert cut.status == 0, cut.err
    for number in range(2):
        log = (tmp_path / "moved" / str(number) / "console.log").read_text()
        assert "the local classifier after encoder.1 starts with initial weights" in log
        assert "after encoder.2 starts" not in log
