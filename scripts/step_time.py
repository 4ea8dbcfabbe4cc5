"""What a training step of local learning in one process costs the host, which queues it, and the GPU:

    python scripts/step_time.py
    python scripts/step_time.py --models resnet32 vit_small --batch-sizes 1024 256 local_loss=infopro

Four blocks, with a plain SGD, kernel by kernel and by ``cuda_graphs``: where graphs make the step shorter, the GPU
waited for the host. Overrides may set the model, the local loss, the data, compile, deterministic and cudnn_benchmark.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from typing import Any

import jobs
import torch
from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from omegaconf import OmegaConf

from trainer.assemble import augmentations, data_spec, label_mixes, load_images, make_network
from trainer.block import Block
from trainer.blocks import make_block
from trainer.data.source import ImageSource
from trainer.graphed import GraphedBlock
from trainer.kernels import kernels
from trainer.packet import Packet
from trainer.plan import Plan
from trainer.precision import DTYPES
from trainer.schedules import Constant
from trainer.settings import Settings
from trainer.update import Update

MODELS = {"resnet32": 1024, "resnet110": 1024, "wide_resnet28_10": 128, "vit_small": 256}
"""Images a step of each, unless the command says otherwise."""

FIRST = 5
"""Steps before the timed ones: they load kernels, compile and record."""

BLOCKS = 4


def main(arguments: Sequence[str] | None = None) -> int:
    """Time and print; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=list(MODELS), metavar="MODEL")
    parser.add_argument("--batch-sizes", nargs="+", type=int, metavar="N", help="of each model")
    parser.add_argument("--precisions", nargs="+", default=list(DTYPES), choices=DTYPES)
    parser.add_argument("--steps", type=jobs.positive, default=12, help="timed steps")
    options = jobs.parsed(parser, arguments)
    sizes = options.batch_sizes or [MODELS.get(model, 0) for model in options.models]
    if len(sizes) != len(options.models) or min(sizes) < 1:
        parser.error(f"--batch-sizes needs a number for each model but {', '.join(MODELS)}")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu", 0)
    name = torch.cuda.get_device_name() if device.type == "cuda" else "CPU, which has no queue"
    print(f"{name}, torch {torch.__version__}, {BLOCKS} blocks in one process {' '.join(options.overrides)}")
    for model, size in zip(options.models, sizes, strict=True):
        for precision in options.precisions:
            for kind in (Block, GraphedBlock) if device.type == "cuda" else (Block,):
                host, step = measure(model, size, precision, kind, device, options)
                how = "graphs" if kind is GraphedBlock else ""
                print(
                    f"{model:<18} {precision} {size:5} {how:<6}  host {1e3 * host:6.1f} ms  step {1e3 * step:6.1f} ms  "
                    f"{size / step:7.0f} images/s",
                    flush=True,
                )
    return 0


def measure(
    model: str, size: int, precision: str, kind: type[Block], device: torch.device, options: argparse.Namespace
) -> tuple[float, float]:
    """Seconds until a step is queued, and until it is done, on average."""
    count = size * (FIRST + options.steps + 1)  # and one batch that is read ahead
    config = composed(f"model={model}", "dataset=synthetic", f"dataset.train_size={count}", *options.overrides)
    images = load_images(config["dataset"])
    spec = data_spec(config["dataset"], images)
    plan = Plan(spec.train_size, spec.test_size, size, epochs=1)
    source = ImageSource(
        images, spec, augmentations(config["dataset"]), plan, 0, device, label_mixes(config["dataset"])
    )
    network = make_network(config, spec)
    cuts = [network.names[len(network.names) * (index + 1) // BLOCKS - 1] for index in range(BLOCKS - 1)]
    blocks = [make_block(network, cuts, index, size, device, DTYPES[precision], kind) for index in range(BLOCKS)]
    for block in blocks:
        block.train_with(Update(block.parameters(), sgd, Constant(), 1, plan.steps_per_epoch))
        block.train()
        if config["compile"]:
            block.compile()
    packets = source.packets(plan.tags(next(plan.phases())))
    with kernels(config["deterministic"], config["cudnn_benchmark"], config["compile"]):
        for _ in range(FIRST):
            take_step(next(packets), blocks)
        wait(device)
        begin = time.perf_counter()
        for _ in range(options.steps):
            take_step(next(packets), blocks)
        queued = time.perf_counter() - begin
        wait(device)
        return queued / options.steps, (time.perf_counter() - begin) / options.steps


def composed(*overrides: str) -> dict[str, Any]:
    """The configuration that the trainer would have."""
    ConfigStore.instance().store("schema", Settings)
    with initialize_config_dir(str(jobs.ROOT / "conf"), version_base="1.3"):
        config: Any = OmegaConf.to_container(compose("config", list(overrides)), resolve=True)
    return dict(config)


def sgd(parameters: Any) -> torch.optim.Optimizer:
    """What every block is updated by."""
    return torch.optim.SGD(parameters, 0.01, 0.9)


def take_step(packet: Packet, blocks: Sequence[Block]) -> None:
    """A training step of every block."""
    for block in blocks:
        output = block.forward(packet)
        block.learn(output)
        packet = output


def wait(device: torch.device) -> None:
    """Until the device has done what is queued."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


if __name__ == "__main__":
    sys.exit(main())
