"""The first promise with everything that draws random numbers or keeps state switched on."""

from pathlib import Path

from tests.distributed.conftest import TINY, Job
from tests.distributed.test_identity import assert_identical, weights

OVERRIDES = (
    *TINY,
    "model=vit_tiny",
    "model.depth=4",
    "model.width=48",
    "model.dropout=0.1",
    "model.stochastic_depth=0.2",
    "optimizer=adamw",
    "dataset.mixup=0.2",
    "dataset.cutmix=1",
    "dataset.label_smoothing=0.1",
    "dataset.rand_augment=1",
    "dataset.random_erasing=0.3",
    "update.average=0.9",
    "update.clip_norm=1.0",
    "update.accumulate=2",
    "update.decay_norms_and_biases=false",
    "partition.points=[encoder.0,encoder.2]",
)


def test_random_draws_and_averages_do_not_depend_on_the_placement(
    forked: Job, forked_alone: Job, tmp_path: Path
) -> None:
    for job, where in ((forked_alone(tmp_path, *OVERRIDES, "engine=sequential", "output_dir=one"), "one"),
                       (forked(3, tmp_path, *OVERRIDES, "output_dir=three"), "three")):  # fmt: skip
        assert job.status == 0, (where, job.err)
    assert_identical(weights(tmp_path / "one"), weights(tmp_path / "three"))
