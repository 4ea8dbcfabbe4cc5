"""One run of the trainer as a torchrun job of its own, for the scripts that time and compare."""

import argparse
import json
import os
import platform
import re
import statistics
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]

sys.path.insert(0, str(ROOT))  # so that the scripts find the trainer of this checkout, installed or not

FIXED = ("dataset=synthetic", "tracker=none", "threads=1")
"""Every timed job: no download, no tracker, one thread a process."""

OPTIMIZERS = {"vit_tiny": ("optimizer=adamw",), "vit_small": ("optimizer=adamw",)}
"""For the models that the default optimizer does not train well."""


class JobError(Exception):
    """A job failed; the message ends with what it printed last."""


@dataclass(frozen=True)
class Result:
    """What a job left in its ``metrics.jsonl``."""

    records: list[dict[str, Any]]

    @classmethod
    def read(cls, directory: Path) -> "Result":
        """The result of the run in ``directory``."""
        lines = (directory / "metrics.jsonl").read_text().splitlines()
        return cls([json.loads(line) for line in lines])

    def of_kind(self, kind: str) -> list[dict[str, Any]]:
        """The records of one kind, ``step``, ``epoch`` or ``summary``, in order."""
        return [record for record in self.records if record["kind"] == kind]

    @property
    def summary(self) -> dict[str, Any]:
        """The last record of a whole run."""
        return self.of_kind("summary")[-1]

    @property
    def images_per_second(self) -> float:
        """Completions at the last block, after the first few steps. Raises ``JobError`` where there were no others."""
        rate = self.summary["images_per_second"]
        if rate is None:
            raise JobError(f"{self.summary['steps']} steps are too few to be timed, since the first do not count")
        return float(rate)

    @property
    def busy_shares(self) -> list[float]:
        """For each rank, the share of its time in which it computes instead of waiting for a neighbor."""
        epochs = [epoch["ranks"] for epoch in self.of_kind("epoch")]
        shares = []
        for laps in zip(*epochs, strict=True):
            busy, wait = (sum(lap[key] for lap in laps) for key in ("busy_seconds", "wait_seconds"))
            shares.append(busy / (busy + wait))
        return shares


def commit() -> str:
    """The commit of this checkout, shortened, with a word on changes since."""
    git = ["git", "-C", str(ROOT)]
    found = subprocess.run([*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    if found.returncode:
        return "an unknown commit"
    changed = subprocess.run([*git, "status", "--porcelain", "trainer", "conf"], capture_output=True, check=False)
    return f"commit {found.stdout.strip()}{' with changes' if changed.stdout else ''}"


def processor() -> str:
    """What the machine calls its processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def shown(arguments: Sequence[str], *hidden: str) -> str:
    """The arguments of a command, for a report, without the ``hidden`` options, which name folders of one machine."""
    words = [word for word in arguments if not word.startswith(tuple(f"{option}=" for option in hidden))]
    before = ["", *words]
    return " ".join(word for word, option in zip(words, before, strict=False) if not {word, option} & set(hidden))


def cores() -> list[int]:
    """The cores that this process may use."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))


def parsed(parser: argparse.ArgumentParser, arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options of a script, and as ``overrides`` every ``NAME=VALUE`` wherever it stands: an option that takes
    several values would take it for one."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    overrides = [word for word in words if re.match(r"[+~]*[\w./@]+=", word)]
    parser.add_argument("overrides", nargs="*", metavar="NAME=VALUE", help="further settings of the trainer, for all")
    options = parser.parse_args([word for word in words if word not in overrides])
    if options.overrides:
        parser.error(f"{options.overrides[0]} is no NAME=VALUE")
    options.overrides = overrides
    return options


def positive(text: str) -> int:
    """A whole number of at least 1, as the type of an option."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} must be at least 1")
    return value


def run(ranks: int, overrides: Sequence[str], directory: Path, pinned: bool = False) -> Result:
    """Run the trainer on ``ranks`` ranks with ``overrides``, in the empty or new ``directory``.

    With ``pinned`` each rank has one core to itself; the trainer does not know of it.

    Raises:
        JobError: the run failed, or there are fewer cores than ranks to pin.
    """
    _launch(ranks, [*overrides, f"output_dir={directory}"], directory, pinned)
    return Result.read(directory)


def sweep(ranks: int, overrides: Sequence[str], directory: Path, pinned: bool = False) -> list[Result]:
    """Several runs in one start of the ranks: ``overrides`` with comma-separated values, as for ``--multirun``. The
    results are in the order of the sweep. Raises as ``run``."""
    _launch(ranks, ["--multirun", *overrides, f"hydra.sweep.dir={directory}"], directory, pinned)
    jobs = [path for path in directory.iterdir() if path.name.isdecimal()]
    return [Result.read(path) for path in sorted(jobs, key=lambda path: int(path.name))]


def spread(values: Sequence[float], form: str) -> str:
    """Median and range, ``1.72 (1.69 to 1.75)``; a single value alone."""
    low, middle, high = (format(f(values), form) for f in (min, statistics.median, max))
    return f"{middle} ({low} to {high})" if len(values) > 1 else middle


def _launch(ranks: int, arguments: Sequence[str], directory: Path, pinned: bool) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    program = [sys.executable, "-m", "trainer.main", *arguments]
    if pinned:
        if ranks > len(cores()):
            raise JobError(f"{ranks} ranks can't have a core each, there are {len(cores())}")
        wrapper = [sys.executable, str(ROOT / "scripts" / "pinned.py"), ",".join(map(str, cores()))]
        program = [*wrapper, *program]
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={ranks}"]
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]  # a person's own classes may lie there
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(paths)}
    done = subprocess.run(
        [*launcher, "--no-python", *program], env=environment, cwd=ROOT, text=True, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, check=False,
    )  # fmt: skip
    (directory / "job.log").write_text(done.stdout)
    if done.returncode:
        raise JobError(f"{' '.join(arguments)} on {ranks} ranks failed:\n{failure(done.stdout)}")


def failure(output: str) -> str:
    """What a person needs to see of a failed job's output: its error in one sentence, or else its last lines."""
    errors = [line for line in output.splitlines() if line.startswith("error:")]
    return errors[0] if errors else "\n".join(output.splitlines()[-20:])
