"""The first promise: the same blocks give the same weights, bit for bit, however they are placed."""

import json
from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor

from tests.distributed.conftest import TINY, Job

CASES = 4
"""The jobs of a sweep over two models and two precisions; the model changes slowest."""

FEWER = (2, 3)
"""Numbers of ranks that have several of the four blocks each."""


def weights(job: Path) -> dict[str, Tensor]:
    return load_file(job / "model.safetensors")


def assert_identical(a: dict[str, Tensor], b: dict[str, Tensor]) -> None:
    assert a.keys() == b.keys()
    differ = [name for name in a if a[name].numpy().tobytes() != b[name].numpy().tobytes()]
    assert not differ


def test_every_placement_gives_the_same_bytes(forked: Job, forked_alone: Job, tmp_path: Path) -> None:
    blocks = ("model.depth=8", "model.width=48", "partition=even", "partition.blocks=4", "optimizer.lr=0.02")
    common = ("--multirun", *TINY, *blocks)
    cases = ("model=resnet32,vit_tiny", "precision=fp32,bf16")
    assert forked_alone(tmp_path, *common, *cases, "engine=sequential", "hydra.sweep.dir=sequential").status == 0
    assert forked(4, tmp_path, *common, *cases, "engine.queue_depth=1", "hydra.sweep.dir=4").status == 0
    for ranks in FEWER:
        options = ("engine.queue_depth=3", "deterministic=true", "model=resnet32,vit_tiny", f"hydra.sweep.dir={ranks}")
        assert forked(ranks, tmp_path, *common, *options).status == 0

    expected = [weights(tmp_path / "sequential" / str(job)) for job in range(CASES)]
    for found in expected:
        untrained = {name for name, tensor in found.items() if tensor.is_floating_point() and not tensor.any()}
        assert not {name for name in untrained if name.endswith("weight")}
    for job in range(CASES):
        assert_identical(weights(tmp_path / "4" / str(job)), expected[job])
    for ranks in FEWER:
        for number, fp32 in enumerate((0, 2)):
            job = tmp_path / str(ranks) / str(number)
            assert_identical(weights(job), expected[fp32])
            owners = [block["rank"] for block in json.loads((job / "partition.json").read_text())["blocks"]]
            assert len(owners) == 4 and set(owners) == set(range(ranks))

    reference = epochs(tmp_path / "sequential/0")[-1]
    for found in (epochs(tmp_path / job)[-1] for job in ("4/0", "3/0", "2/0")):
        assert found["train"] == reference["train"] and found["test"] == reference["test"]


def epochs(job: Path) -> list[dict]:
    records = [json.loads(line) for line in (job / "metrics.jsonl").read_text().splitlines()]
    return [record for record in records if record["kind"] == "epoch"]
