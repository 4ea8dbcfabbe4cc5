"""Models of torchvision on two ranks."""

import json
import math
from pathlib import Path

from tests.conftest import Compose
from tests.distributed import train_configs
from tests.distributed.conftest import Job

MODELS = {
    "resnet18": 64,
    "efficientnet_b0": 64,
    "mobilenet_v3_small": 64,
    "convnext_tiny": 64,
    "vit_b_16": 224,
}
"""With the size of the images, which for the last one is the only one that it takes."""

COMPARED = ("efficientnet_b0",)
"""Of them, trained once more in one process: it has dropout and stochastic depth."""

OVERRIDES = (
    "model=torchvision",
    "dataset=synthetic",
    "dataset.train_size=4",
    "dataset.test_size=2",
    "batch_size=2",
    "epochs=1",
    "local_loss=greedy",
    "partition.blocks=2",
    "optimizer.lr=1e-3",
    "optimizer.nesterov=false",
    "optimizer.momentum=0",  # these models are large, and a momentum is written and read like a second one
    "log.every_steps=1",
    "checkpoint.every_epochs=null",
    "tracker=none",
    "device=cpu",
    "threads=1",
)


def test_models_of_torchvision_train_on_two_ranks_as_in_one_process(
    configured: Compose, forked: Job, forked_alone: Job, tmp_path: Path
) -> None:
    def config(name: str, *overrides: str) -> dict[str, object]:
        return configured(*OVERRIDES, f"model.name={name}", f"dataset.image_size={MODELS[name]}", *overrides)

    two = train_configs.listed(tmp_path / "two", {name: config(name) for name in MODELS})
    one = train_configs.listed(tmp_path / "one", {name: config(name, "engine=sequential") for name in COMPARED})
    for done in (
        forked(2, tmp_path, two, program=train_configs.__file__),
        forked_alone(tmp_path, one, program=train_configs.main),
    ):
        assert done.status == 0, done.err

    for name in MODELS:
        lines = [json.loads(line) for line in (tmp_path / "two" / name / "metrics.jsonl").read_text().splitlines()]
        steps = [line for line in lines if line["kind"] == "step"]
        assert [step["step"] for step in steps] == [1, 2]
        assert all(math.isfinite(block["loss"]) for step in steps for block in step["blocks"])
        assert [len(step["blocks"]) for step in steps] == [2, 2]
        assert lines[-1]["kind"] == "summary" and len(lines[-1]["cut_points"]) == 1
    for name in COMPARED:
        found, wanted = (tmp_path / ranks / name / "model.safetensors" for ranks in ("two", "one"))
        assert found.read_bytes() == wanted.read_bytes(), name
