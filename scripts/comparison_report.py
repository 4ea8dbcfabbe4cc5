"""The report of ``scripts/compare.py``: a table for each model, and plots."""

import argparse
import json
import os
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import jobs
import torch
from sleep_benchmark import bubble_bound

from trainer.assemble import make_network
from trainer.blocks import activation, edge_layouts
from trainer.finished import FinishedRun
from trainer.precision import DTYPES

TITLES = {
    "ppll": "ppll",
    "sequential": "local learning, one process",
    "backprop": "backpropagation, one process",
    "ddp": "backpropagation, data-parallel",
    "ddp_local": "local learning, data-parallel",
    "pipeline": "best pipeline",
}

PAPER = {"vit": (2.62, 1.25), "resnet": (1.33, 0.85)}
"""What the paper (arXiv 2411.12780) reports for PPLL on 4 GPUs, by the kind of model: its speed over local learning in
one process, and over ordinary pipeline parallelism."""


@dataclass(frozen=True)
class Comparison:
    """Everything found out about one model: the speeds of all schedules (schedule, micro-batches, images per second),
    which one was best, and the rounds' results and first folder of each finalist."""

    model: str
    tried: list[tuple[str, int, float]]
    schedule: str
    microbatches: int
    results: dict[str, list[jobs.Result]]
    folders: dict[str, Path]

    def rates(self, engine: str) -> list[float]:
        """Images per second in every round."""
        return [result.images_per_second for result in self.results[engine]]

    def ratios(self, engine: str, other: str) -> list[float]:
        """How much faster ``engine`` was than ``other``, round by round."""
        return [a / b for a, b in zip(self.rates(engine), self.rates(other), strict=True)]


def write(report: Path, found: Sequence[Comparison], options: argparse.Namespace, command: str) -> None:
    """Write ``report``, made by ``command``, and the plots beside it."""
    report.parent.mkdir(parents=True, exist_ok=True)
    lines = [
        "# Comparison",
        "",
        f"{options.ranks} ranks, batch {options.batch_size} for all, {options.epochs} epochs of {options.steps} steps "
        f"of synthetic images, {options.rounds} rounds in turn; one thread a rank; local losses by "
        f"{_local_loss(found[0])}. "
        f"{machine(options.ranks)} {time.strftime('%Y-%m-%d')}, at {jobs.commit()}:",
        "",
        f"    {command}",
        "",
        "Speeds are medians with their range in brackets. The efficiency is the speed over that of one process with "
        "the same kind of training times the number of ranks; for ranks that share cores it says nothing.",
    ]
    for comparison in found:
        picture = _plot(comparison, report)
        lines += ["", f"## {comparison.model}", "", f"![speeds]({picture.name})", "", *_table(comparison, options)]
        lines += ["", "Every schedule once, images per second by micro-batches:", "", *_schedules(comparison)]
    report.write_text("\n".join(lines) + "\n", encoding="utf-8")


def machine(ranks: int) -> str:
    """Where the jobs run, and with which torch: results of another do not belong into the same report."""
    cores = len(jobs.cores())
    sharing = "each rank pinned to a core" if ranks <= cores else f"the ranks share {cores} cores"
    return f"{os.cpu_count()} cores of {jobs.processor()}, {sharing}, torch {torch.__version__}."


def _local_loss(found: Comparison) -> str:
    """The class of the local loss of the jobs that have one."""
    return str(FinishedRun.read(found.folders["ppll"]).config["local_loss"]["_target_"]).rpartition(".")[2]


def _table(found: Comparison, options: argparse.Namespace) -> list[str]:
    kind = next((values for prefix, values in PAPER.items() if found.model.startswith(prefix)), None)
    head = [
        "", "images/s", "to local learning in one process", "paper", "to the best pipeline", "paper",
        "to backpropagation, data-parallel", "efficiency", "theory", "peak MiB of each rank", "bytes sent an image",
        "final loss",
    ]  # fmt: skip
    times = [_time_to(results[0], options.accuracy, options.batch_size) for results in found.results.values()]
    if any(times):
        head.append(f"s to {100 * options.accuracy:.0f} %")
    rows = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for (engine, results), time_to in zip(found.results.items(), times, strict=True):
        paper = [f"{value:.2f}" if kind and engine == "ppll" else "" for value in kind or (0, 0)]
        ranks = len(results[0].of_kind("epoch")[0]["ranks"])
        last = results[0].of_kind("epoch")[-1]
        cells = [
            TITLES[engine] + (f" ({found.schedule}, {found.microbatches})" if engine == "pipeline" else ""),
            jobs.spread(found.rates(engine), ".0f"),
            jobs.spread(found.ratios(engine, "sequential"), ".2f"),
            paper[0],
            jobs.spread(found.ratios(engine, "pipeline"), ".2f"),
            paper[1],
            jobs.spread(found.ratios(engine, "ddp"), ".2f"),
            f"{100 * _efficiency(found, engine, ranks):.0f} %",
            f"{100 * _theory(found, engine, ranks):.0f} %",
            " ".join(f"{rank['peak_memory_bytes'] / 2**20:.0f}" for rank in last["ranks"]),
            f"{_bytes_an_image(engine, found.folders[engine], ranks):,.0f}",
            f"{last['train']['blocks'][-1]['loss']:.3f}",
            *([time_to or "not reached"] if any(times) else []),
        ]
        rows.append("| " + " | ".join(cells) + " |")
    if not any(times):
        rows += ["", f"No run reached a test accuracy of {100 * options.accuracy:.0f} % (`--accuracy`, `--epochs`)."]
    return rows


def _efficiency(found: Comparison, engine: str, ranks: int) -> float:
    alone = "sequential" if engine in ("ppll", "sequential", "ddp_local") else "backprop"
    return statistics.median(found.ratios(engine, alone)) / ranks


def _theory(found: Comparison, engine: str, ranks: int) -> float:
    """The efficiency that the bubble leaves, for a backward twice as long as the forward; 1 where there is none."""
    if engine != "pipeline":
        return 1.0
    return 3.0 / bubble_bound(found.schedule, ranks, found.microbatches, 1.0, 2.0)


def _bytes_an_image(engine: str, folder: Path, ranks: int) -> float:
    """What all ranks together send for one training image: packets; activations and gradients of every cut between two
    ranks; or each rank's part of a ring all-reduce of the gradients, 2 (N - 1) / N of them."""
    if ranks == 1:
        return 0.0
    run = FinishedRun.read(folder)
    network, batch = make_network(run.config, run.spec), run.config["batch_size"]
    partition = json.loads((folder / "partition.json").read_text())
    cuts, blocks = partition["cut_points"], partition["blocks"]
    dtype = DTYPES[run.config["precision"]]
    crossed = [k for k in range(len(cuts)) if blocks[k]["rank"] != blocks[k + 1]["rank"]]
    if engine == "ppll":
        layouts = edge_layouts(network, cuts, batch, dtype)
        return sum(layouts[k].nbytes for k in crossed) / batch
    if engine == "pipeline":
        return 2 * sum(activation(network, cuts[k], batch, dtype).nbytes for k in crossed) / batch
    parameters = sum(block["parameters"] + block["classifier_parameters"] for block in blocks)
    return 2 * (ranks - 1) * 4 * parameters / batch


def _time_to(result: jobs.Result, accuracy: float, batch_size: int) -> str:
    """Seconds of training until the test accuracy is reached for the first time, at the steady speed; empty where it is
    not."""
    for epoch in result.of_kind("epoch"):
        if "test" in epoch and epoch["test"]["accuracy"] >= accuracy:
            return f"{epoch['step'] * batch_size / result.images_per_second:.1f}"
    return ""


def _schedules(found: Comparison) -> list[str]:
    counts = sorted({count for _, count, _ in found.tried})
    rates = {(schedule, count): rate for schedule, count, rate in found.tried}
    rows = ["| | " + " | ".join(map(str, counts)) + " |", "|---" * (len(counts) + 1) + "|"]
    for schedule in dict.fromkeys(schedule for schedule, _, _ in found.tried):
        cells = [f"{rates[schedule, count]:.0f}" if (schedule, count) in rates else "-" for count in counts]
        rows.append(f"| {schedule} | " + " | ".join(cells) + " |")
    return rows


def _plot(found: Comparison, report: Path) -> Path:
    """A bar for each finalist, with its range."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    engines = list(found.results)
    middles = [statistics.median(found.rates(engine)) for engine in engines]
    below = [middle - min(found.rates(engine)) for engine, middle in zip(engines, middles, strict=True)]
    above = [max(found.rates(engine)) - middle for engine, middle in zip(engines, middles, strict=True)]
    figure, axes = plt.subplots(figsize=(7, 3), layout="constrained")
    axes.barh([TITLES[engine] for engine in engines], middles, xerr=[below, above], color="tab:blue", capsize=3)
    axes.invert_yaxis()
    axes.set_xlabel("images per second")
    axes.set_title(found.model)
    path = report.with_name(f"{report.stem}_{found.model}.png")
    figure.savefig(path, dpi=150)
    plt.close(figure)
    return path
