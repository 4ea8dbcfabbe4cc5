"""How much faster PPLL is than the same local learning in one process, on this machine, with real models:

    python scripts/benchmark.py
    python scripts/benchmark.py --models resnet32 --ranks 2 --batch-size 128 --rounds 7

Each side is a torchrun job of the trainer itself, on synthetic images: ``engine=ppll`` with every rank pinned to a core
of its own, and ``engine=sequential`` with the same blocks pinned to one core. The two alternate, so that a slow minute
of the machine hits both. Images per second are the trainer's own, without the first steps.

    python scripts/benchmark.py --sleep
    python scripts/benchmark.py --sleep --ranks 2 4 8 --forward-ms 10 --backward-ms 20 --microbatches 2 4 8 16

times the same engines and transport with blocks that sleep for a set time instead of computing, so that what is left is
the cost of schedule and transport: ppll and every schedule of engine=pipeline, next to one block alone in one process
and to what the bubble alone would cost. More ranks than cores can be timed so.

    python scripts/benchmark.py --start --ranks 4

times a run from the command to its first step, next to a program that only imports torch and makes a gloo group.
"""

import argparse
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import jobs
import sleep_benchmark
import start_benchmark

from trainer.engines.pipeline import SCHEDULES

MODELS = ("resnet32", "vit_tiny")

LOOKED_AT = {
    "--sleep": {"steps", "forward_ms", "backward_ms", "packet_bytes", "schedules", "microbatches"},
    "--start": set(),
    "real models": {"steps", "models", "batch_size"},
}
"""The options of each way of timing, beside those of all, ``COMMON``."""

COMMON = {"ranks", "rounds", "sleep", "start", "overrides"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Time, print, and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=MODELS, metavar="MODEL")
    parser.add_argument("--ranks", type=jobs.positive, nargs="+", help="ranks of ppll, by default 2, a core each")
    parser.add_argument("--batch-size", type=jobs.positive, default=128, help="images a step")
    parser.add_argument("--rounds", type=jobs.positive, default=5, help="how often each side is timed")
    parser.add_argument("--steps", type=jobs.positive, default=60, help="training steps of a job")
    parser.add_argument("--start", action="store_true", help="time from the command to the first step")
    sleep = parser.add_argument_group("with --sleep")
    sleep.add_argument("--sleep", action="store_true", help="time blocks that sleep")
    sleep.add_argument(
        "--forward-ms", type=_numbers, default=[10.0], help="of each block: 10,10,10,10, or one for all"
    )
    sleep.add_argument("--backward-ms", type=_numbers, default=[20.0], help="half for inputs, half for weights")
    sleep.add_argument("--packet-bytes", type=int, default=2**20, help="activations of a batch between two blocks")
    sleep.add_argument("--schedules", nargs="*", choices=SCHEDULES, default=list(SCHEDULES), metavar="SCHEDULE")
    sleep.add_argument("--microbatches", type=int, nargs="+", default=[2, 4, 8, 16])
    options = jobs.parsed(parser, arguments)
    way = "--sleep" if options.sleep else "--start" if options.start else "real models"
    for name in sorted(vars(options).keys() - COMMON - LOOKED_AT[way]):
        if getattr(options, name) != parser.get_default(name):
            parser.error(f"--{name.replace('_', '-')} has no use with {way}")
    try:
        if options.sleep:
            sleep_benchmark.measure(options)
            return 0
        if options.start:
            for ranks in options.ranks or [4]:
                start_benchmark.measure(ranks, options.rounds, options.overrides)
            return 0
        for model in options.models:
            for ranks in options.ranks or [2]:
                _speedup(model, ranks, options)
    except jobs.JobError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _speedup(model: str, ranks: int, options: argparse.Namespace) -> None:
    """Time one model on both sides, in turn, and print what came out."""
    common = [
        *jobs.FIXED,
        f"model={model}",
        *jobs.OPTIMIZERS.get(model, ()),
        f"batch_size={options.batch_size}",
        f"dataset.train_size={options.batch_size * options.steps}",
        f"dataset.test_size={options.batch_size}",
        "epochs=1",
        f"partition.blocks={ranks}",
        *options.overrides,
    ]
    rates: dict[str, list[float]] = {"ppll": [], "sequential": []}
    print(f"{model}, batch {options.batch_size}, {ranks} blocks, {options.steps} steps a job", flush=True)
    for number in range(options.rounds):
        for engine, found in rates.items():
            result = _run(ranks if engine == "ppll" else 1, [*common, f"engine={engine}"])
            found.append(result.images_per_second)
            busy = " ".join(f"{100 * share:.0f}" for share in result.busy_shares)
            print(f"  round {number + 1} {engine:<10} {found[-1]:8.1f} images/s   busy % {busy}", flush=True)
    for engine, found in rates.items():
        print(f"  {engine:<10} {jobs.spread(found, '.1f')} images/s")
    ratios = [fast / slow for fast, slow in zip(rates["ppll"], rates["sequential"], strict=True)]
    print(f"  ppll is {jobs.spread(ratios, '.2f')} times as fast as sequential\n", flush=True)


def _numbers(text: str) -> list[float]:
    return [float(number) for number in text.split(",")]


def _run(ranks: int, overrides: Sequence[str]) -> jobs.Result:
    directory = Path(tempfile.mkdtemp(prefix="benchmark-"))
    try:
        return jobs.run(ranks, overrides, directory, pinned=True)
    finally:
        shutil.rmtree(directory)


if __name__ == "__main__":
    sys.exit(main())
