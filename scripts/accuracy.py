"""How accurate each local loss is beside end-to-end training, on the same images with the same budget:

    python scripts/accuracy.py --data cifar10_small.npz
    python scripts/accuracy.py --data cifar10.npz --epochs 160 --seeds 0 1 2 --at-once 4 \\
        --methods end-to-end infopro-contrast auglocal dgl -- experiment=resnet32_cifar10_k4 precision=bf16 \\
        cuda_graphs=true eval.every_epochs=10

Each method is a run of the trainer itself, ``engine=sequential``, which gives the weights that a pipeline would.
End-to-end training is the same run with one block. A run that is there already is not repeated and one that was stopped
goes on, so the script can be stopped and started again. Writes docs/accuracy.md and docs/accuracy.png.
"""

import argparse
import math
import platform
import statistics
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jobs
import numpy as np
import torch

END_TO_END = "end-to-end"
PLAIN = ("greedy", "dgl", "predsim", "infopro", "auglocal", "deinforeg", "overlap", "man")

POINTS = "layer1.2,layer2.1,layer3.0"

METHODS: dict[str, list[str]] = {
    END_TO_END: [],
    **{name: [f"local_loss={name}"] for name in PLAIN},
    "infopro-contrast": ["local_loss=infopro", "local_loss.contrast=true"],
}
"""The settings of each method."""

Curves = dict[str, list[list[dict[str, Any]]]]
"""For each method and each seed, the records of the epochs with a test."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Train, write the report, and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="an .npz file as dataset=npz reads it")
    parser.add_argument("--model", help="a file of conf/model (resnet32, or the recipe's)")
    parser.add_argument("--points", help=f"cut points of the local losses ({POINTS}, or the recipe's)")
    parser.add_argument("--epochs", type=jobs.positive, help="of each run (6, or the recipe's)")
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=METHODS, metavar="METHOD")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--at-once", type=jobs.positive, default=1, metavar="N", help="so many runs share the machine")
    parser.add_argument("--work", type=Path, default=Path("outputs/accuracy"), help="where the runs lie")
    parser.add_argument("--report", type=Path, default=jobs.ROOT / "docs" / "accuracy.md")
    options = jobs.parsed(parser, arguments)
    if not _recipe(options):
        options.model, options.epochs = options.model or "resnet32", options.epochs or 6
        options.points = options.points or POINTS
    if not options.data.is_file():
        parser.error(f"--data {options.data} is no file; scripts/cifar10_npz.py makes one of CIFAR-10")
    at_once = ThreadPoolExecutor(options.at_once)
    try:
        runs = {
            method: [at_once.submit(_train, method, seed, options) for seed in options.seeds]
            for method in options.methods
        }
        curves = {method: [run.result() for run in runs[method]] for method in options.methods}
    except jobs.JobError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    finally:
        at_once.shutdown(cancel_futures=True)
    options.report.parent.mkdir(parents=True, exist_ok=True)
    options.report.write_text(report(curves, options))
    plot(curves, options.report.with_suffix(".png"))
    return 0


def _train(method: str, seed: int, options: argparse.Namespace) -> list[dict[str, Any]]:
    """The tested epochs of one run; a run that has ended only prints its summary."""
    begin = time.perf_counter()
    directory = (options.work / f"{method}-{seed}").absolute()
    points = "" if method == END_TO_END else options.points
    cuts = None if points is None else f"[{points}]"
    given = {"model": options.model, "epochs": options.epochs, "partition.points": cuts}
    overrides = [
        "engine=sequential", "tracker=none", "dataset=npz", f"dataset.path={options.data.absolute()}", f"seed={seed}",
        *(f"{name}={value}" for name, value in given.items() if value is not None), *METHODS[method],
        *options.overrides,
    ]  # fmt: skip
    tested = [epoch for epoch in jobs.run(1, overrides, directory).of_kind("epoch") if "test" in epoch]
    reached, seconds = tested[-1]["test"]["accuracy"], time.perf_counter() - begin
    print(f"{method:<16} seed {seed}: {100 * reached:5.2f} % ({seconds:.0f} s)", flush=True)
    return tested


def report(curves: Curves, options: argparse.Namespace) -> str:
    """The report, Markdown: error of the last and of the best epoch, mean over the seeds, and that of every exit."""
    what = [options.model, *_recipe(options), options.epochs and f"{options.epochs} epochs"]
    cut = options.points and f"cut after {options.points.replace(',', ', ')}"
    seeds = f"{len(options.seeds)} seeds (± is their standard deviation)" if len(options.seeds) > 1 else "one seed"
    lines = [
        "# Accuracy of local losses",
        "",
        f"{', '.join(filter(None, [*what, f'on `{options.data.name}`', seeds, cut]))}; end-to-end "
        "training is the same with one block. Settings that the command does not name are the defaults or the "
        "recipe's. The best epoch is chosen on the test set, so the last one is what "
        "counts. "
        f"{_doubt(curves, options.data)}",
        "",
        f"    python scripts/accuracy.py {_shown(sys.argv[1:], options)}",
        "",
        "`scripts/cifar10_npz.py` makes such files.",
        "",
        f"torch {torch.__version__}, {_machine()}, {time.strftime('%Y-%m-%d')}.",
        "",
        "| method | test error %, last epoch | best epoch | errors % of the exits, first to last |",
        "|---|---|---|---|",
    ]
    for method, runs in curves.items():
        last = [100 * (1 - run[-1]["test"]["accuracy"]) for run in runs]
        best = [100 * (1 - max(epoch["test"]["accuracy"] for epoch in run)) for run in runs]
        exits = zip(*([block["accuracy"] for block in run[-1]["test"]["blocks"]] for run in runs), strict=True)
        shown = " / ".join(f"{100 * (1 - statistics.mean(values)):.1f}" for values in exits)
        lines.append(f"| {method} | {_mean(last)} | {_mean(best)} | {shown} |")
    return "\n".join([*lines, "", f"![Test error over the epochs]({options.report.stem}.png)", ""])


def _doubt(curves: Curves, data: Path) -> str:
    """How far an error may be off because of the number of test images alone."""
    with np.load(data) as arrays:
        images = len(arrays["y_test"])
    accuracy = next(iter(curves.values()))[0][-1]["test"]["accuracy"]
    error = math.sqrt(accuracy * (1 - accuracy) / images)
    return f"With {images:,} test images an error has a standard error of {100 * error:.1f} points."


def plot(curves: Curves, path: Path) -> None:
    """The test error of each method over the epochs, mean over the seeds."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4.5), layout="constrained")
    for method, runs in curves.items():
        errors = [[100 * (1 - epoch["test"]["accuracy"]) for epoch in run] for run in runs]
        means = [statistics.mean(values) for values in zip(*errors, strict=True)]
        style: dict[str, Any] = (
            {"color": "black", "linewidth": 2.5} if method == END_TO_END else {"marker": "o", "markersize": 3}
        )
        axes.plot([epoch["epoch"] for epoch in runs[0]], means, label=method, **style)
    axes.set(xlabel="epoch", ylabel="test error, %")
    axes.grid(alpha=0.3)
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    figure.savefig(path, dpi=150)


def _mean(values: Sequence[float]) -> str:
    spread = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.2f}{spread}"


def _recipe(options: argparse.Namespace) -> list[str]:
    """The recipe that the overrides name, if they do."""
    return [override for override in options.overrides if override.startswith("experiment=")]


def _shown(arguments: Sequence[str], options: argparse.Namespace) -> str:
    """The command's arguments, without the folders of this machine."""
    return jobs.shown(arguments, "--work", "--report").replace(str(options.data), options.data.name)


def _machine() -> str:
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return f"{len(jobs.cores())} CPU cores ({platform.machine()})"


if __name__ == "__main__":
    sys.exit(main())
