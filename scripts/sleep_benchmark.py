"""What schedules and transport cost, measured with blocks that sleep: ``python scripts/benchmark.py --sleep``."""

import argparse
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import jobs
import schedules
import torch
from sleeping import cut_points, sleeping

from trainer.engines.pipeline import SCHEDULES

RANKS = 4
"""Where nobody says how many."""

BATCH = 64
PARTS = 2
"""Stages of a rank, for the schedules with several."""

LEFT_OUT = 5
"""Steps of the bare loop that do not count, as many as the trainer leaves out."""


def measure(options: argparse.Namespace) -> None:
    """Time, for each number of ranks, a block alone and ppll in turn, the median of several rounds; then every schedule
    at every number of micro-batches once, and the best few of them and ppll in turn."""
    forward, backward = options.forward_ms, options.backward_ms
    if options.steps <= LEFT_OUT:
        raise jobs.JobError(f"--steps {options.steps} leaves none to be timed; it must be more than {LEFT_OUT}")
    for ranks in options.ranks or [len(forward) if len(forward) > 1 else RANKS]:
        times = [values * ranks if len(values) == 1 else values for values in (forward, backward)]
        if not len(times[0]) == len(times[1]) == ranks:
            raise jobs.JobError(f"--forward-ms and --backward-ms have {len(forward)} and {len(backward)} values; one "
                                f"for each of {ranks} ranks, or a single one for all")  # fmt: skip
        _measure(times[0], times[1], options)


def _measure(forward: list[float], backward: list[float], options: argparse.Namespace) -> None:
    ranks = len(forward)
    print(f"{ranks} ranks, forward {forward} ms, backward {backward} ms, packets of {options.packet_bytes} bytes")
    slowest = max(range(ranks), key=lambda block: forward[block] + backward[block])
    own = [forward[slowest]], [backward[slowest]]
    common = _settings(forward, backward, options)
    ppll = [*common, "engine=ppll", f"partition.points=[{','.join(cut_points(ranks, 1))}]"]
    with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
        bare = _alone_and_together(*own, ppll, ranks, Path(folder), options)
        tried = {}
        for name, counts in schedules.possible(options.schedules, options.microbatches, BATCH, ranks):
            results = jobs.sweep(ranks, [*common, *_scheduled(name, ranks, *counts)], Path(folder) / name)
            for count, result in zip(counts, results, strict=True):
                tried[name, count] = _seconds(result)
                bound = bubble_bound(name, ranks, count, own[0][0] / 1e3, own[1][0] / 1e3)
                theory = f"   bubble alone {1e3 * bound:7.2f} ms"
                _line(f"{name}, {count} micro-batches", [tried[name, count]], [bare], theory)
        if tried:
            contenders = sorted(tried, key=lambda key: tried[key])[: schedules.CONTENDERS]
            rivals = {f"{name}, {count} micro-batches": [*common, *_scheduled(name, ranks, count)]
                      for name, count in contenders}  # fmt: skip
            _in_turn(rivals, ppll, ranks, Path(folder), options)


def _alone_and_together(
    forward: list[float],
    backward: list[float],
    ppll: list[str],
    ranks: int,
    folder: Path,
    options: argparse.Namespace,
) -> float:
    """Time one block in a bare loop and in the trainer, and ppll with all blocks, in turn; the seconds of a step of the
    bare loop."""
    one_block = [*_settings(forward, backward, options), "engine=sequential", "partition.blocks=1"]
    rounds = [
        (
            _bare_loop(forward, backward, options),
            _seconds(jobs.run(1, one_block, folder / f"alone{number}")),
            _seconds(jobs.run(ranks, ppll, folder / f"ppll{number}")),
        )
        for number in range(options.rounds)
    ]
    bare, alone, together = zip(*rounds, strict=True)
    print(f"  {'the slowest block alone, a bare loop':<42} {_took(bare)}", flush=True)
    _line("the slowest block alone, the trainer", alone, bare)
    _line("ppll", together, bare)
    return statistics.median(bare)


def _in_turn(
    rivals: dict[str, list[str]], ppll: list[str], ranks: int, folder: Path, options: argparse.Namespace
) -> None:
    """Compare the best schedules, by what they are called, with ppll in rounds."""
    print(f"  in turn, {options.rounds} rounds")
    times: dict[str, list[float]] = {name: [] for name in ("ppll", *rivals)}
    for number in range(options.rounds):
        for place, (name, settings) in enumerate({"ppll": ppll, **rivals}.items()):
            times[name].append(_seconds(jobs.run(ranks, settings, folder / f"turn{number}-{place}")))
    for name, seconds in times.items():
        print(f"  {name:<42} {_took(seconds)}")
    best = min(rivals, key=lambda name: statistics.median(times[name]))
    ratios = [rival / own for rival, own in zip(times[best], times["ppll"], strict=True)]
    print(f"  the best is {best}; ppll is {jobs.spread(ratios, '.2f')} times as fast\n", flush=True)


def _scheduled(name: str, ranks: int, *microbatches: int) -> list[str]:
    """The settings of a schedule, swept over several numbers of micro-batches where there are several."""
    parts = PARTS if SCHEDULES[name].several else 1
    return [
        "engine=pipeline",
        f"model.parts={parts}",
        f"partition.points=[{','.join(cut_points(ranks, parts))}]",
        f"engine.schedule={name}",
        f"engine.microbatches={','.join(map(str, microbatches))}",
    ]


def bubble_bound(schedule: str, ranks: int, microbatches: int, forward: float, backward: float) -> float:
    """Seconds of a step if only the bubble of ``schedule`` cost time: the formulas of the papers (see ``SCHEDULES``),
    for equal stages with ``forward`` and ``backward`` seconds a rank and whole batch, of which half the backward is for
    weights."""
    weights = backward / 2
    idle = {
        "gpipe": forward + backward,
        "1f1b": forward + backward,
        "interleaved_1f1b": (forward + backward) / PARTS,
        "looped_bfs": (forward + backward) / PARTS,
        "interleaved_zero_bubble": (forward + backward - 2 * weights) / PARTS,
        "zbv_zero_bubble": 0.0,
        "dual_pipe_v": (forward + 2 * backward - 3 * weights) / PARTS,
    }
    return forward + backward + (ranks - 1) * idle[schedule] / microbatches


def _settings(forward: list[float], backward: list[float], options: argparse.Namespace) -> list[str]:
    return [
        "--config-dir",
        str(jobs.ROOT / "scripts" / "conf"),
        *jobs.FIXED,
        "model=sleeping",
        f"model.forward_ms={forward}".replace(" ", ""),
        f"model.backward_ms={backward}".replace(" ", ""),
        f"model.packet_bytes={options.packet_bytes}",
        f"batch_size={BATCH}",
        f"dataset.train_size={BATCH * options.steps}",
        f"dataset.test_size={BATCH}",
        "dataset.image_size=8",
        "local_loss=glancing",
        "optimizer=sgd",
        "epochs=1",
        *options.overrides,
    ]


def _bare_loop(forward: list[float], backward: list[float], options: argparse.Namespace) -> float:
    """Seconds of a step of one block in a loop with nothing around it."""
    torch.set_num_threads(1)
    model = sleeping(forward, backward, 1, BATCH, options.packet_bytes, num_classes=10)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    images, labels = torch.rand(BATCH, 3, 8, 8), torch.randint(10, (BATCH,))
    seconds = 0.0
    for step in range(options.steps):
        if step == LEFT_OUT:
            seconds = time.perf_counter()
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(images), labels).backward()
        optimizer.step()
    return (time.perf_counter() - seconds) / (options.steps - LEFT_OUT)


def _seconds(result: jobs.Result) -> float:
    """Seconds of a step."""
    return BATCH / result.images_per_second


def _line(name: str, seconds: Sequence[float], bare: Sequence[float], theory: str = "") -> None:
    """Print what a step took, one value a round, beside the bare loop of the same round."""
    share = jobs.spread([time / alone for time, alone in zip(seconds, bare, strict=True)], ".3f")
    print(f"  {name:<42} {_took(seconds)}, {share} of the block alone{theory}", flush=True)


def _took(seconds: Sequence[float]) -> str:
    return f"{1e3 * statistics.median(seconds):7.2f} ms a step"
