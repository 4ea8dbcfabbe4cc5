"""The identity of placements holds for compiled units too."""

import shutil
from collections import OrderedDict
from pathlib import Path

import pytest
from torch import nn

from tests.distributed.conftest import TINY, Job
from tests.distributed.test_identity import assert_identical, weights
from trainer.models.heads import PoolHead
from trainer.models.resnet import BasicBlock, Stem


def small(num_classes: int, image_shape: tuple[int, int, int]) -> nn.Sequential:
    """A ResNet of three units: to compile one takes ten seconds."""
    units = {"stem": Stem(image_shape[0], 8, 3), "block": BasicBlock(8, 8, 1), "head": PoolHead(8, num_classes)}
    return nn.Sequential(OrderedDict(units))


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
def test_compiled_units_give_the_same_bytes_on_ranks_and_in_one_process(
    forked: Job, forked_alone: Job, tmp_path: Path
) -> None:
    model = ("~model.depth", "~model.width", f"model._target_={__name__}.small", "partition.points=[stem]")
    options = (*TINY, *model, "compile=true", "local_loss=greedy", "epochs=1")
    assert forked_alone(tmp_path, *options, "engine=sequential", "output_dir=one").status == 0
    assert forked(2, tmp_path, *options, "output_dir=two").status == 0
    assert_identical(weights(tmp_path / "two"), weights(tmp_path / "one"))
