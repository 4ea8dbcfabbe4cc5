"""What only a GPU shows: steps that never wait for it, packets through host memory and by NCCL, and how a run ends."""

import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from scripts.chaos import Job as Running
from tests.conftest import Compose
from tests.distributed.conftest import TINY, Job, run
from tests.distributed.test_faults import LONG, log, until
from tests.distributed.test_identity import assert_identical, weights
from trainer.assemble import augmentations, data_spec, label_mixes, load_images, make_network
from trainer.blocks import make_block
from trainer.data.source import ImageSource
from trainer.local_losses.following import Follower
from trainer.plan import Plan
from trainer.schedules import Constant
from trainer.update import Update

pytestmark = pytest.mark.gpu

SMALL = ("device=cuda", "deterministic=true", "model.depth=14", "model.width=8", "optimizer.lr=0.02")

SOFT_AND_RANDOM = (
    "dataset=synthetic", "dataset.train_size=64", "dataset.test_size=8", "dataset.image_size=16", "dataset.mixup=0.2",
    "dataset.cutmix=1", "dataset.label_smoothing=0.1", "dataset.random_erasing=0.5", "model.depth=8", "model.width=8",
    "dataset.augment=[{_target_:trainer.data.augment.RandomCrop,padding:2},"
    "{_target_:trainer.data.augment.HorizontalFlip}]",
)  # fmt: skip


def needs(gpus: int) -> pytest.MarkDecorator:
    """Skip where there are fewer GPUs."""
    return pytest.mark.skipif(torch.cuda.device_count() < gpus, reason=f"fewer than {gpus} GPUs")


@pytest.mark.parametrize("local_loss", ["dgl", "overlap"])
def test_the_host_never_waits_for_the_device_in_a_training_step(local_loss: str, configured: Compose) -> None:
    config, device = configured(*SOFT_AND_RANDOM, f"local_loss={local_loss}"), torch.device("cuda", 0)
    images = load_images(config["dataset"])
    spec, plan = data_spec(config["dataset"], images), Plan(64, 8, 8, epochs=1)
    source = ImageSource(
        images, spec, augmentations(config["dataset"]), plan, 0, device, label_mixes(config["dataset"])
    )
    block = make_block(make_network(config, spec), ["layer1.0"], 0, 8, device, torch.float32)
    parameters = block.parameters()
    block.train_with(Update(parameters, lambda p: torch.optim.SGD(p, 0.01, 0.9), Constant(), 1, 8))
    block.train()
    follower = block.classifier if isinstance(block.classifier, Follower) else None
    published = {} if follower is None else {name: own.cpu() for name, own in follower.next.state_dict().items()}
    try:
        for packet in source.packets(plan.tags(next(plan.phases()))):
            output = block.forward(packet)
            if follower is not None:
                follower.follow(published)
            block.learn(output)
            if packet.tag.step == 2:  # memory has been allocated and kernels have been loaded
                torch.cuda.set_sync_debug_mode("error")
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert packet.tag.step == 8
    block.check_losses()


TRAINER = ("-m", "trainer.main")
NCCL_ON_ONE_GPU = (str(Path(__file__).parents[2] / "scripts" / "nccl_on_one_gpu.py"),)


@pytest.mark.parametrize(
    ("gpus", "program", "carried"),
    [
        (1, TRAINER, "go through host memory"),
        (1, NCCL_ON_ONE_GPU, "packets by NCCL"),
        pytest.param(2, TRAINER, "packets by NCCL", marks=needs(2)),
    ],
)
def test_ranks_and_graphs_give_the_bytes_of_one_process(
    gpus: int, program: tuple[str, ...], carried: str, torchrun: Job, alone: Job, tmp_path: Path
) -> None:
    losses, graphs = "local_loss=dgl,infopro,overlap", "cuda_graphs=false,true"
    settings = ("--multirun", *TINY, *SMALL, "partition.blocks=2", losses, graphs)
    visible = {"CUDA_VISIBLE_DEVICES": ",".join(str(gpu) for gpu in range(gpus))}
    two = torchrun(2, tmp_path, *settings, "hydra.sweep.dir=two", program=program, environment=visible)
    assert two.status == 0, two.err
    assert two.out.count(carried) == 6
    assert alone(tmp_path, *settings, "engine=sequential", "hydra.sweep.dir=one").status == 0
    for job in range(6):
        assert_identical(weights(tmp_path / f"two/{job}"), weights(tmp_path / f"one/{job}"))
    for plain, graphed in ((0, 1), (2, 3), (4, 5)):
        assert_identical(weights(tmp_path / f"one/{graphed}"), weights(tmp_path / f"one/{plain}"))


def test_random_numbers_in_graphs_depend_on_neither_ranks_nor_interruptions(
    torchrun: Job, alone: Job, tmp_path: Path
) -> None:
    vit = ("model=vit_tiny", "model.depth=4", "model.width=32", "model.heads=2", "model.dropout=0.2")
    settings = (*TINY, *vit, "device=cuda", "deterministic=true", "partition.blocks=2", "cuda_graphs=true")
    job = torchrun(2, tmp_path, *settings, "output_dir=two")
    assert job.status == 0, job.err
    assert alone(tmp_path, *settings, "engine=sequential", "output_dir=one").status == 0
    for stop in ("max_steps=6", "max_steps=null"):
        assert alone(tmp_path, *settings, "engine=sequential", "output_dir=parts", stop).status == 0
    assert_identical(weights(tmp_path / "two"), weights(tmp_path / "one"))
    assert_identical(weights(tmp_path / "parts"), weights(tmp_path / "one"))


@pytest.fixture
def chain(tmp_path: Path) -> Iterator[Running]:
    """Three ranks that train for longer than any test waits."""
    job = Running(tmp_path / "run", 3, LONG, 0, "device=cuda", "timeout_seconds=5")
    yield job
    job.end()


def test_sigterm_ends_all_ranks_at_one_step(chain: Running) -> None:
    until(chain, 50)
    chain.process.send_signal(signal.SIGTERM)
    chain.process.wait(30)
    sentence = next(line for line in log(chain).splitlines() if line.startswith("SIGTERM ended the run after step "))
    last = int(sentence.split()[6].rstrip(";"))
    parts = (chain.directory / "checkpoints" / f"step-{last:08d}").glob("rank-*.safetensors")
    assert len(list(parts)) == 3


def test_a_rank_that_hangs_is_named(chain: Running) -> None:
    until(chain, 50)
    hung = chain.rank(2)
    assert hung is not None
    os.kill(hung, signal.SIGSTOP)
    end = time.monotonic() + 60
    while "error: " not in log(chain) and time.monotonic() < end:
        time.sleep(0.1)
    sentence = next(line for line in log(chain).splitlines() if line.startswith("error: "))
    assert sentence.startswith("error: rank 2 stopped answering") and "waited for" in sentence


NO_CONTEXT = """
import threading, torch
from trainer.hostcopy import HostCopy
device = torch.device("cuda", 1)
torch.cuda.set_device(device)
copy = HostCopy(torch.ones(3, device=device))
thread = threading.Thread(target=copy.wait)
thread.start()
thread.join()
assert not torch._C._cuda_hasPrimaryContext(0)
"""


@needs(2)
def test_a_thread_that_waits_opens_no_context_on_another_gpu(tmp_path: Path) -> None:
    job = run([sys.executable, "-c", NO_CONTEXT], tmp_path)
    assert job.status == 0, job.err
