"""The identity of placements holds in bf16, under torch's deterministic operations, and compiled too."""

import shutil
from pathlib import Path

import pytest

from tests.distributed.conftest import TINY, Job
from tests.distributed.test_identity import assert_identical, weights


def test_bf16_gives_the_same_bytes_on_ranks_and_in_one_process(torchrun: Job, alone: Job, tmp_path: Path) -> None:
    common = ("--multirun", *TINY, "model=resnet32,vit_tiny", "partition=even", "partition.blocks=3", "epochs=1")
    options = ("precision=bf16", "deterministic=true", "optimizer.lr=0.02")
    assert alone(tmp_path, *common, *options, "engine=sequential", "hydra.sweep.dir=one").status == 0
    assert torchrun(2, tmp_path, *common, *options, "engine=ppll", "hydra.sweep.dir=two").status == 0
    for job in ("0", "1"):
        assert_identical(weights(tmp_path / "two" / job), weights(tmp_path / "one" / job))


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
def test_compiled_units_give_the_same_bytes_on_ranks_and_in_one_process(
    torchrun: Job, alone: Job, tmp_path: Path
) -> None:
    options = (*TINY, "compile=true", "model.depth=8", "model.width=4", "partition.blocks=2", "local_loss=greedy")
    assert alone(tmp_path, *options, "epochs=1", "engine=sequential", "output_dir=one").status == 0
    assert torchrun(2, tmp_path, *options, "epochs=1", "output_dir=two").status == 0
    assert_identical(weights(tmp_path / "two"), weights(tmp_path / "one"))
