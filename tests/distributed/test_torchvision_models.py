"""Models of torchvision on two ranks."""

import json
import math
from pathlib import Path

from tests.distributed.conftest import Job

MODELS = ("resnet18", "efficientnet_b0", "mobilenet_v3_small", "vgg11_bn", "convnext_tiny")
"""Those that take images of any size."""

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
    "optimizer.lr=1e-3",
    "log.every_steps=1",
    "checkpoint.every_epochs=null",
    "tracker=none",
    "device=cpu",
    "threads=1",
)


def check_run(run: Path) -> None:
    """Two steps on two ranks."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    steps = [line for line in lines if line["kind"] == "step"]
    assert [step["step"] for step in steps] == [1, 2]
    assert all(math.isfinite(block["loss"]) for step in steps for block in step["blocks"])
    assert [len(step["blocks"]) for step in steps] == [2, 2]
    assert lines[-1]["kind"] == "summary" and len(lines[-1]["cut_points"]) == 1


def test_models_of_torchvision_train_on_two_ranks_as_in_one_process(
    forked: Job, forked_alone: Job, tmp_path: Path
) -> None:
    sweep = ("--multirun", *OVERRIDES, "dataset.image_size=64")
    done = forked(2, tmp_path, *sweep, f"model.name={','.join(MODELS)}", "hydra.sweep.dir=sweep")
    assert done.status == 0, done.err
    one = ("engine=sequential", "partition.blocks=2", "hydra.sweep.dir=alone")
    done = forked_alone(tmp_path, *sweep, f"model.name={','.join(COMPARED)}", *one)
    assert done.status == 0, done.err
    for job in range(len(MODELS)):
        check_run(tmp_path / "sweep" / str(job))
    for job, name in enumerate(COMPARED):
        trained = tmp_path / f"sweep/{MODELS.index(name)}/model.safetensors"
        assert trained.read_bytes() == (tmp_path / f"alone/{job}/model.safetensors").read_bytes(), name


def test_a_vision_transformer_of_torchvision_trains_on_two_ranks(forked: Job, tmp_path: Path) -> None:
    """With images of the one size that it takes."""
    done = forked(2, tmp_path, *OVERRIDES, "model.name=vit_b_16", "dataset.image_size=224", "output_dir=run")
    assert done.status == 0, done.err
    check_run(tmp_path / "run")
