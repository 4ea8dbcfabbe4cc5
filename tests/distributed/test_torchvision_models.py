"""Models of torchvision on two ranks."""

import json
import math
from pathlib import Path

from tests.distributed.conftest import Job

MODELS = ("resnet18", "efficientnet_b0", "mobilenet_v3_small", "vgg11_bn", "convnext_tiny", "vit_b_16")

COMPARED = ("efficientnet_b0", "mobilenet_v3_small", "resnet18")
"""Those that are small enough to be trained once more in one process."""

OVERRIDES = (
    "model=torchvision",
    "dataset=synthetic",
    "dataset.train_size=4",
    "dataset.test_size=2",
    "dataset.image_size=224",
    "batch_size=2",
    "epochs=1",
    "local_loss=greedy",
    "optimizer.lr=1e-3",
    "log.every_steps=1",
    "tracker=none",
    "device=cpu",
    "threads=1",
)


def test_models_of_torchvision_train_on_two_ranks_as_in_one_process(
    torchrun: Job, alone: Job, tmp_path: Path
) -> None:
    names = f"model.name={','.join(MODELS)}"
    done = torchrun(2, tmp_path, "--multirun", *OVERRIDES, names, "hydra.sweep.dir=sweep")
    assert done.status == 0, done.err
    some = f"model.name={','.join(COMPARED)}"
    one = ("engine=sequential", "partition.blocks=2", "hydra.sweep.dir=alone")
    done = alone(tmp_path, "--multirun", *OVERRIDES, some, *one)
    assert done.status == 0, done.err
    for job, name in enumerate(MODELS):
        lines = [json.loads(line) for line in (tmp_path / f"sweep/{job}/metrics.jsonl").read_text().splitlines()]
        steps = [line for line in lines if line["kind"] == "step"]
        assert [step["step"] for step in steps] == [1, 2], name
        assert all(math.isfinite(block["loss"]) for step in steps for block in step["blocks"]), name
        assert [len(step["blocks"]) for step in steps] == [2, 2], name
        assert lines[-1]["kind"] == "summary" and len(lines[-1]["cut_points"]) == 1, name
    for job, name in enumerate(COMPARED):
        trained = tmp_path / f"sweep/{MODELS.index(name)}/model.safetensors"
        assert trained.read_bytes() == (tmp_path / f"alone/{job}/model.safetensors").read_bytes(), name
