"""The identity of placements holds for compiled units too."""

import shutil
from pathlib import Path

import pytest

from tests.distributed.conftest import TINY, Job
from tests.distributed.test_identity import assert_identical, weights


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
def test_compiled_units_give_the_same_bytes_on_ranks_and_in_one_process(
    forked: Job, forked_alone: Job, tmp_path: Path
) -> None:
    options = (*TINY, "compile=true", "model.depth=8", "model.width=8", "partition.blocks=2", "local_loss=greedy")
    assert forked_alone(tmp_path, *options, "epochs=1", "engine=sequential", "output_dir=one").status == 0
    assert forked(2, tmp_path, *options, "epochs=1", "output_dir=two").status == 0
    assert_identical(weights(tmp_path / "two"), weights(tmp_path / "one"))
