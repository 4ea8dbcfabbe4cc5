"""The identity of placements holds in bf16 and under torch's deterministic operations too."""

from pathlib import Path

from tests.distributed.conftest import TINY, Job
from tests.distributed.test_identity import assert_identical, weights


def test_bf16_gives_the_same_bytes_on_ranks_and_in_one_process(torchrun: Job, alone: Job, tmp_path: Path) -> None:
    common = ("--multirun", *TINY, "model=resnet32,vit_tiny", "partition=even", "partition.blocks=3", "epochs=1")
    options = ("precision=bf16", "deterministic=true", "optimizer.lr=0.02")
    assert alone(tmp_path, *common, *options, "engine=sequential", "hydra.sweep.dir=one").status == 0
    assert torchrun(2, tmp_path, *common, *options, "engine=ppll", "hydra.sweep.dir=two").status == 0
    for job in ("0", "1"):
        assert_identical(weights(tmp_path / "two" / job), weights(tmp_path / "one" / job))
