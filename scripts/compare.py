"""PPLL against what a user would pick instead, on the same work, each as a torchrun job of its own:

    python scripts/compare.py
    python scripts/compare.py --models resnet32 vit_tiny --ranks 2 --microbatches 2 4 8 --rounds 5

First every pipeline schedule and number of micro-batches once; then the best three of them, ppll, sequential local
learning, backpropagation in one process and data parallelism in turn, several rounds. The pipeline that is compared is
the one of the three with the highest median. What is done is kept in the work folder: stopped at any moment, the same
command goes on from there, as long as code and machine are the same. At the end docs/comparison.md and its plots are
written.

Where there are cores enough, every rank is pinned to one of its own.
"""

import argparse
import json
import shutil
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import comparison_report
import jobs
import schedules

from trainer.engines.pipeline import SCHEDULES

ROUND_ENGINES = ("ppll", "sequential", "backprop", "ddp", "ddp_local")
"""What is timed in every round, beside the best pipelines; ``backprop`` is one process, ``ddp`` the same on all."""


@dataclass(frozen=True)
class Case:
    """One way to train one model."""

    model: str
    engine: str
    schedule: str = ""
    microbatches: int = 0

    @property
    def name(self) -> str:
        """For people and for folders."""
        return f"{self.schedule}-{self.microbatches}" if self.schedule else self.engine

    def ranks(self, ranks: int) -> int:
        """How many processes it runs on."""
        return 1 if self.engine in ("sequential", "backprop") else ranks

    def settings(self, ranks: int) -> list[str]:
        """Its own settings."""
        engine = "backprop" if self.engine == "ddp" else self.engine
        chosen = [f"model={self.model}", *jobs.OPTIMIZERS.get(self.model, ()), f"engine={engine}"]
        if self.engine in ("ppll", "sequential", "ddp_local"):
            chosen.append(f"partition.blocks={ranks}")
        if self.schedule:
            chosen += [f"engine.schedule={self.schedule}", f"engine.microbatches={self.microbatches}"]
        return chosen


class Runner:
    """Runs cases, or reads what an earlier, stopped call left of them; shows how far it is."""

    def __init__(self, options: argparse.Namespace, total: int) -> None:
        self._options, self._total, self._number = options, total, 0
        self._begin, self._run, self._code = time.monotonic(), 0, jobs.commit()

    def result(self, case: Case, number: int) -> jobs.Result:
        """The result of round ``number`` of a case. Raises ``JobError``."""
        options = self._options
        folder = self.folder(case, number)
        settings = [*jobs.FIXED, *case.settings(options.ranks), *self._common()]
        where = comparison_report.machine(options.ranks)
        asked = {"settings": settings, "machine": where, "code": self._code}  # what is timed depends on all three
        done = folder / "settings.json"
        self._number += 1
        head = f"[{self._number:>{len(str(self._total))}}/{self._total}] {case.model} {case.name} round {number}"
        if done.is_file() and json.loads(done.read_text()) == asked:
            print(f"{head}: kept from before", flush=True)
            return jobs.Result.read(folder)
        shutil.rmtree(folder, ignore_errors=True)
        print(f"{head} ...", end="", flush=True)
        ranks = case.ranks(options.ranks)
        result = jobs.run(ranks, settings, folder, pinned=options.ranks <= len(jobs.cores()))
        done.write_text(json.dumps(asked))
        self._run += 1
        print(f" {result.images_per_second:.1f} images/s, about {self._minutes_left():.0f} min left", flush=True)
        return result

    def folder(self, case: Case, number: int) -> Path:
        """Where the files of round ``number`` of a case are."""
        options = self._options
        return Path(options.work) / case.model / f"{case.name}-{case.ranks(options.ranks)}" / str(number)

    def _minutes_left(self) -> float:
        return (time.monotonic() - self._begin) / self._run * (self._total - self._number) / 60

    def _common(self) -> list[str]:
        options = self._options
        return [
            f"batch_size={options.batch_size}",
            f"dataset.train_size={options.batch_size * options.steps}",
            f"dataset.test_size={options.batch_size}",
            f"epochs={options.epochs}",
            *options.overrides,
        ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is missing, write the report, and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["resnet32", "vit_tiny"], metavar="MODEL")
    parser.add_argument("--ranks", type=jobs.positive, default=4)
    parser.add_argument("--schedules", nargs="+", choices=SCHEDULES, default=list(SCHEDULES), metavar="SCHEDULE")
    parser.add_argument("--microbatches", type=int, nargs="+", default=[2, 4, 8, 16])
    parser.add_argument("--batch-size", type=jobs.positive, default=128, help="images a step, the same for all")
    parser.add_argument("--rounds", type=jobs.positive, default=3, help="how often the finalists are timed")
    parser.add_argument("--steps", type=jobs.positive, default=20, help="training steps of an epoch")
    parser.add_argument("--epochs", type=jobs.positive, default=2)
    parser.add_argument("--accuracy", type=float, default=0.9, help="test accuracy whose time is reported")
    parser.add_argument("--work", type=Path, default=Path("outputs/comparison"), help="where results are kept")
    parser.add_argument("--report", type=Path, default=jobs.ROOT / "docs" / "comparison.md")
    options = jobs.parsed(parser, arguments)
    options.work = options.work.resolve()
    names = list(schedules.possible(options.schedules, options.microbatches, options.batch_size, options.ranks))
    trials = {
        model: [Case(model, "pipeline", name, count) for name, counts in names for count in counts]
        for model in options.models
    }
    finalists = {model: len(ROUND_ENGINES) + min(schedules.CONTENDERS, len(cases)) for model, cases in trials.items()}
    total = sum(len(cases) + finalists[model] * options.rounds for model, cases in trials.items())
    if not all(trials.values()):
        parser.error("--schedules and --microbatches leave no pipeline that these ranks and this batch allow")
    runner = Runner(options, total)
    try:
        found = [_compared(model, trials[model], runner, options) for model in options.models]
    except jobs.JobError as error:
        print(f"\nerror: {error}", file=sys.stderr)
        return 1
    command = jobs.shown(sys.argv[1:] if arguments is None else arguments, "--work", "--report")
    comparison_report.write(options.report, found, options, f"python scripts/compare.py {command}".strip())
    print(f"written: {options.report}")
    return 0


def _compared(
    model: str, trials: list[Case], runner: Runner, options: argparse.Namespace
) -> comparison_report.Comparison:
    """All results for one model."""
    tried = {case: runner.result(case, 0).images_per_second for case in trials}
    contenders = sorted(trials, key=lambda case: -tried[case])[: schedules.CONTENDERS]
    engines = [Case(model, engine) for engine in ROUND_ENGINES]
    rounds: dict[Case, list[jobs.Result]] = {case: [] for case in (*engines, *contenders)}
    for number in range(1, options.rounds + 1):
        for case, results in rounds.items():
            results.append(runner.result(case, number))

    def speed(case: Case) -> float:
        return statistics.median(result.images_per_second for result in rounds[case])

    best = max(contenders, key=speed)
    shown = [*engines, best]
    return comparison_report.Comparison(
        model,
        [(case.schedule, case.microbatches, rate) for case, rate in tried.items()],
        best.schedule,
        best.microbatches,
        {case.engine: rounds[case] for case in shown},
        {case.engine: runner.folder(case, 1) for case in shown},
    )


if __name__ == "__main__":
    sys.exit(main())
