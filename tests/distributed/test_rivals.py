"""What a user would pick instead computes what it says: the same weights as one process, to float tolerance."""

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.distributed.conftest import TINY, Job
from tests.distributed.test_identity import assert_identical, epochs, weights
from trainer.engines.pipeline import SCHEDULES, V_ON_CPUS

VIT = (
    "model=vit_tiny", "model.depth=4", "model.width=32", "model.heads=2", "optimizer.lr=0.05", "update.clip_norm=0.5"
)  # fmt: skip
"""Without batch norm, which sees each micro-batch or each rank's share alone; long enough for four stages; clipped in
every step."""


OFFERED = [name for name, schedule in SCHEDULES.items() if not schedule.in_a_v or torch.__version__ >= V_ON_CPUS]
"""The schedules that this torch can do on CPUs."""


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


RIVALS = ("backprop", "ddp_local", "pipeline")


def test_copies_and_every_schedule_give_the_weights_of_one_process(
    forked: Job, forked_alone: Job, tmp_path: Path
) -> None:
    common = ("--multirun", *TINY, "dataset.test_size=13", *VIT)
    rivals = f"engine={','.join(RIVALS)}"
    assert forked_alone(tmp_path, *common, "engine=backprop,sequential", "hydra.sweep.dir=one").status == 0
    assert forked(2, tmp_path, *common, "max_steps=6,null", rivals, "hydra.sweep.dir=two").status == 0
    schedules = "engine.schedule=" + ",".join(OFFERED)
    options = ("engine=pipeline", "engine.microbatches=4", schedules, "hydra.sweep.dir=pipeline")
    assert forked(2, tmp_path, *common, *options).status == 0

    parts, wholes = ([tmp_path / "two" / str(number) for number in numbers] for numbers in ((0, 1, 2), (3, 4, 5)))
    assert_close(wholes[0], tmp_path / "one/0")
    assert_close(wholes[1], tmp_path / "one/1")
    for job in range(len(OFFERED)):
        assert_close(tmp_path / "pipeline" / str(job), tmp_path / "one/0")
    assert not [name for name in weights(tmp_path / "one/0") if name.startswith("local_classifiers.")]

    # Stopped in the middle of an epoch, each goes on as if it had not been.
    again = "resume='two/${hydra:job.num}'"
    assert forked(2, tmp_path, *common, rivals, again, "hydra.sweep.dir=again").status == 0
    for number, (part, whole) in enumerate(zip(parts, wholes, strict=True)):
        assert [epoch["epoch"] for epoch in epochs(part)] == [1, 2]
        assert_identical(weights(tmp_path / "again" / str(number)), weights(whole))
        assert_close(tmp_path / "again" / str(number), whole)
    # And one goes on from what the other left.
    assert forked_alone(tmp_path, *common, "engine=backprop", "resume=two/0,two/2", "hydra.sweep.dir=other").status == 0
    for number in ("0", "1"):
        assert_close(tmp_path / "other" / number, tmp_path / "one/0")


def test_three_copies_go_on_as_if_they_had_not_stopped(forked: Job, tmp_path: Path) -> None:
    """Where the order of a sum over the ranks matters, and in the middle of an update."""
    parts = ("batch_size=9", "update.accumulate=3")
    common, rivals = ("--multirun", *TINY, *VIT, *parts), "engine=backprop,ddp_local"
    assert forked(3, tmp_path, *common, "max_steps=2,null", rivals, "hydra.sweep.dir=all").status == 0
    again = "resume='all/${hydra:job.num}'"
    assert forked(3, tmp_path, *common, rivals, again, "hydra.sweep.dir=again").status == 0
    for number in (0, 1):
        assert_identical(weights(tmp_path / f"again/{number}"), weights(tmp_path / f"all/{number + 2}"))


def test_every_rank_must_have_the_same_images(forked: Job, tmp_path: Path) -> None:
    images, labels = np.zeros((20, 8, 8, 3), np.uint8), np.arange(20) % 2
    for rank, count in enumerate((20, 19)):
        x, y = images[:count], labels[:count]
        np.savez(tmp_path / f"{rank}.npz", x_train=x, y_train=y, x_test=images[:4], y_test=labels[:4])
    data = ("dataset=npz", f"dataset.path={tmp_path}/${{oc.env:RANK}}.npz", "epochs=1", "batch_size=4")
    job = forked(2, tmp_path, "engine=backprop", *data, "model.depth=8", "device=cpu", "threads=1", "tracker=none")
    assert job.status != 0 and "has other images than rank 0" in job.err
    assert job.err.count("error: ") == 1


@pytest.mark.skipif(torch.__version__ < V_ON_CPUS, reason="this torch has no V on CPUs")
def test_feature_maps_cross_three_stages_and_zero_bubbles(forked: Job, tmp_path: Path) -> None:
    """Channels-last maps, batch norm, bf16, and what autograd forbids to detach in place."""
    job = forked(
        3, tmp_path, "--multirun", *TINY, "model.depth=14", "model.width=8", "engine=pipeline", "precision=fp32,bf16",
        "engine.microbatches=4", "engine.schedule=1f1b,zbv_zero_bubble", "hydra.sweep.dir=maps",
    )  # fmt: skip
    assert job.status == 0
    assert_close(tmp_path / "maps/1", tmp_path / "maps/0")  # cut into six stages and into three
    exact, *rounded = ([e["train"]["blocks"][0]["loss"] for e in epochs(tmp_path / f"maps/{n}")] for n in (0, 2, 3))
    assert all(losses == pytest.approx(exact, rel=0.05) for losses in rounded), (exact, rounded)
