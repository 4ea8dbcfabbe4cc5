"""The first promise: the same blocks give the same weights, bit for bit, however they are placed."""

import json
from pathlib import Path

import pytest
from safetensors.torch import load_file
from torch import Tensor

from tests.distributed.conftest import TINY, Job

POINTS = {
    "resnet32": "partition.points=[layer1.2,layer2.1,layer3.0]",
    "vit_tiny": "partition.points=[encoder.1,encoder.5,encoder.8]",
}
LOSSES = ("dgl", "greedy")


def weights(job: Path) -> dict[str, Tensor]:
    return load_file(job / "model.safetensors")


def assert_identical(a: dict[str, Tensor], b: dict[str, Tensor]) -> None:
    assert a.keys() == b.keys()
    differ = [name for name in a if a[name].numpy().tobytes() != b[name].numpy().tobytes()]
    assert not differ


@pytest.mark.parametrize("model", POINTS)
def test_every_placement_gives_the_same_bytes(model: str, torchrun: Job, alone: Job, tmp_path: Path) -> None:
    common = ("--multirun", *TINY, f"model={model}", POINTS[model], "optimizer.lr=0.02")
    sweep = "local_loss=" + ",".join(LOSSES)
    assert alone(tmp_path, *common, sweep, "engine=sequential", "hydra.sweep.dir=sequential").status == 0
    assert torchrun(4, tmp_path, *common, sweep, "engine.queue_depth=1,2,4", "hydra.sweep.dir=four").status == 0
    for ranks in (1, 2, 3):
        assert torchrun(ranks, tmp_path, *common, "local_loss=dgl", f"hydra.sweep.dir={ranks}").status == 0

    expected = {loss: weights(tmp_path / "sequential" / str(job)) for job, loss in enumerate(LOSSES)}
    untrained = {name for name, tensor in expected["dgl"].items() if tensor.is_floating_point() and not tensor.any()}
    assert not {name for name in untrained if name.endswith("weight")}
    for job in range(6):
        assert_identical(weights(tmp_path / "four" / str(job)), expected[LOSSES[job // 3]])
    for ranks in (1, 2, 3):
        assert_identical(weights(tmp_path / str(ranks) / "0"), expected["dgl"])
        owners = [
            block["rank"] for block in json.loads((tmp_path / str(ranks) / "0/partition.json").read_text())["blocks"]
        ]
        assert len(owners) == 4 and set(owners) == set(range(ranks))

    first, last = (epochs(tmp_path / "four" / job)[-1] for job in ("0", "2"))
    reference = epochs(tmp_path / "sequential/0")[-1]
    for found in (first, last):
        assert found["train"] == reference["train"] and found["test"] == reference["test"]


def epochs(job: Path) -> list[dict]:
    records = [json.loads(line) for line in (job / "metrics.jsonl").read_text().splitlines()]
    return [record for record in records if record["kind"] == "epoch"]
