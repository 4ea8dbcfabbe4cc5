"""Models of torchvision on two ranks."""

import json
import math
import os
import subprocess
import sys

MODELS = ("resnet18", "efficientnet_b0", "mobilenet_v3_small", "vgg11_bn", "convnext_tiny", "vit_b_16")


def test_models_of_torchvision_train_on_two_ranks(tmp_path):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "-m", "trainer.main"]
    command += ["--multirun", f"model.name={','.join(MODELS)}", f"hydra.sweep.dir={tmp_path}", "model=torchvision"]
    command += ["dataset=synthetic", "dataset.train_size=4", "dataset.test_size=2", "dataset.image_size=224"]
    command += ["batch_size=2", "epochs=1", "local_loss=greedy", "optimizer.lr=1e-3", "tracker=none"]
    command += ["log.every_steps=1", "threads=1"]
    done = subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    for job, name in enumerate(MODELS):
        lines = [json.loads(line) for line in (tmp_path / str(job) / "metrics.jsonl").read_text().splitlines()]
        steps = [line for line in lines if line["kind"] == "step"]
        assert [step["step"] for step in steps] == [1, 2], name
        assert all(math.isfinite(block["loss"]) for step in steps for block in step["blocks"]), name
        assert [len(step["blocks"]) for step in steps] == [2, 2], name
        assert lines[-1]["kind"] == "summary" and len(lines[-1]["cut_points"]) == 1, name
