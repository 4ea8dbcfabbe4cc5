"""What a user would pick instead computes what it says: the same weights as one process, to float tolerance."""

from pathlib import Path

import pytest
import torch

from tests.distributed.conftest import TINY, Job
from tests.distributed.test_identity import epochs, weights
from trainer.engines.pipeline import SCHEDULES

VIT = ("model=vit_tiny", "model.depth=4", "model.width=32", "model.heads=2", "optimizer.lr=0.05")
"""Without batch norm, which sees each micro-batch or each rank's share alone; long enough for four stages."""


def assert_close(found: Path, expected: Path) -> None:
    """The same weights, and the same losses and accuracies of the whole test set."""
    a, b = weights(found), weights(expected)
    assert a.keys() == b.keys()
    for name in a:
        torch.testing.assert_close(a[name], b[name], rtol=1e-4, atol=1e-5)
    for one, other in zip(epochs(found), epochs(expected), strict=True):
        for split in ("train", "test"):
            assert len(one[split]["blocks"]) == len(other[split]["blocks"])
            for x, y in zip(one[split]["blocks"], other[split]["blocks"], strict=True):
                assert x == pytest.approx(y, rel=1e-4)


def test_copies_and_every_schedule_give_the_weights_of_one_process(torchrun: Job, alone: Job, tmp_path: Path) -> None:
    common = ("--multirun", *TINY, "dataset.test_size=13", *VIT)
    local = "partition.points=[encoder.0,encoder.2]"
    assert alone(tmp_path, *common, "engine=backprop", "hydra.sweep.dir=one").status == 0
    assert alone(tmp_path, *common, "engine=sequential", local, "hydra.sweep.dir=local").status == 0
    assert torchrun(2, tmp_path, *common, "engine=backprop", "hydra.sweep.dir=ddp").status == 0
    assert torchrun(2, tmp_path, *common, "engine=ddp_local", local, "hydra.sweep.dir=ddp_local").status == 0
    schedules = "engine.schedule=" + ",".join(SCHEDULES)
    options = ("engine=pipeline", "engine.microbatches=4", schedules, "hydra.sweep.dir=pipeline")
    assert torchrun(2, tmp_path, *common, *options).status == 0

    assert_close(tmp_path / "ddp/0", tmp_path / "one/0")
    assert_close(tmp_path / "ddp_local/0", tmp_path / "local/0")
    for job in range(len(SCHEDULES)):
        assert_close(tmp_path / "pipeline" / str(job), tmp_path / "one/0")
    assert not [name for name in weights(tmp_path / "one/0") if name.startswith("local_classifiers.")]


def test_feature_maps_cross_three_stages_and_zero_bubbles(torchrun: Job, tmp_path: Path) -> None:
    """Channels-last maps, batch norm, bf16, and what autograd forbids to detach in place."""
    job = torchrun(
        3, tmp_path, "--multirun", *TINY, "model.depth=14", "model.width=4", "engine=pipeline", "precision=fp32,bf16",
        "engine.microbatches=4", "engine.schedule=1f1b,zbv_zero_bubble", "hydra.sweep.dir=maps",
    )  # fmt: skip
    assert job.status == 0
    for number in range(4):
        (tested,) = [epoch["test"]["blocks"] for epoch in epochs(tmp_path / "maps" / str(number))[-1:]]
        assert len(tested) == 1 and tested[0]["loss"] < 10
