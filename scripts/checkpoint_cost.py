"""What a checkpoint costs the thread that trains:

    python scripts/checkpoint_cost.py
    python scripts/checkpoint_cost.py --model vit_tiny optimizer=adamw

Trains for real, in one process, and reads the training thread's own CPU clock before and after ``Keeper.trained``,
which is called between two steps: it copies the state where a checkpoint is due, and another thread writes the copy.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from unittest import mock

import jobs

import trainer.main
from trainer.checkpoint.keeper import Keeper

EVERY = 50
"""Steps between two checkpoints, of which the share is told."""

MEASURED_EVERY = 10
"""Steps between two checkpoints here, so that there are several."""

LEFT_OUT = 5
"""First steps, which are slower."""


@dataclass
class Times:
    """In seconds: the CPU time of steps, and for every step that saves the CPU time and the real time of that."""

    steps: list[float] = field(default_factory=list)
    saving: list[float] = field(default_factory=list)
    saving_real: list[float] = field(default_factory=list)
    last: float | None = None

    def trained(self, keeper: Keeper, step: int) -> None:
        """In place of ``Keeper.trained``: the same, timed."""
        begin, real = time.thread_time(), time.perf_counter()
        kept(keeper, step)
        end = time.thread_time()
        if self.last is not None:
            self.steps.append(begin - self.last)
        if step % MEASURED_EVERY == 0:
            self.saving.append(end - begin)
            self.saving_real.append(time.perf_counter() - real)
        self.last = end


kept = Keeper.trained


def measure(model: str, batch_size: int, checkpoints: int, overrides: Sequence[str], directory: Path) -> Times:
    """Train for as many steps as it takes to write so many checkpoints."""
    steps, times = checkpoints * MEASURED_EVERY, Times()
    settings = [
        *jobs.FIXED, "engine=sequential", "partition.blocks=4", f"model={model}", f"batch_size={batch_size}",
        "epochs=1", f"dataset.train_size={batch_size * steps}", f"dataset.test_size={batch_size}",
        f"output_dir={directory}", f"checkpoint.every_steps={MEASURED_EVERY}", *overrides,
    ]  # fmt: skip
    timed = mock.patch.object(Keeper, "trained", lambda keeper, step: times.trained(keeper, step))
    with timed, mock.patch.object(sys, "argv", ["trainer.main", *settings]):
        trainer.main.main()
    return times


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="resnet32")
    parser.add_argument("--batch-size", type=jobs.positive, default=64, help="images a step")
    parser.add_argument("--checkpoints", type=jobs.positive, default=10, help="how many are timed")
    options = jobs.parsed(parser, None)
    with tempfile.TemporaryDirectory(prefix="checkpoint-") as folder:
        directory = Path(folder)
        times = measure(options.model, options.batch_size, options.checkpoints, options.overrides, directory)
        newest = max((directory / "checkpoints").iterdir())
        size = sum(file.stat().st_size for file in newest.iterdir())
    step, saving = statistics.median(times.steps[LEFT_OUT:]), statistics.median(times.saving)
    rows = [
        ("CPU time of a step", f"{1e3 * step:.1f} ms"),
        ("CPU time of the copy, on the training thread", f"{1e3 * saving:.1f} ms"),
        ("the longest of them", f"{1e3 * max(times.saving):.1f} ms"),
        ("real time of the copy", f"{1e3 * statistics.median(times.saving_real):.1f} ms"),
        ("written by another thread", f"{size / 1e6:.1f} MB"),
        ("the copy's share of a step", f"{100 * saving / step:.2f} %"),
        (f"of the training thread's time, one every {EVERY} steps", f"{100 * saving / (EVERY * step):.3f} %"),
    ]
    print(f"\n{options.model}, batch {options.batch_size}, 4 blocks in one process of one thread; medians")
    print("\n".join(f"  {name:<48}{value:>10}" for name, value in rows))


if __name__ == "__main__":
    main()
