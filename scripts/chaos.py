"""Kill random ranks of a training run at random moments, and see that nothing trained is lost.

    python scripts/chaos.py --kills 20 --seed 0

A run is trained once without disturbance and once under ``torchrun --max-restarts`` while ranks are killed (SIGKILL):
half of the kills at random steps, half while a checkpoint is being written. Then the final weights of both are compared
byte for byte. Exits with status 1 where they differ, or where a kill was not survived.
"""

import argparse
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from safetensors.numpy import load_file

STEPS_PER_EPOCH = 16
SAVE_EVERY = 5
WRITING_SECONDS = 0.1
"""A checkpoint of the small model is written in less."""

RESULT_SECONDS = 120.0
"""A run that shows no new step for so long has failed."""

SYNTHETIC = (
    "dataset=synthetic", f"dataset.train_size={16 * STEPS_PER_EPOCH}", "dataset.test_size=40", "dataset.image_size=16",
)  # fmt: skip

SETTINGS = (
    "batch_size=16", "model.depth=8", "local_loss=dgl", "device=cpu", "threads=1", "tracker=none",
    "log.every_steps=1",
    f"checkpoint.every_steps={SAVE_EVERY}", "checkpoint.every_epochs=null",
)  # fmt: skip


@dataclass
class Report:
    """What happened."""

    seed: int
    ranks: int
    steps: int
    kills: list[str] = field(default_factory=list)
    resumes: int = 0
    repeated: int = 0
    identical: bool = False

    def text(self) -> str:
        """For people."""
        return "\n".join(
            [
                f"ranks {self.ranks}, steps {self.steps}, a checkpoint every {SAVE_EVERY} steps, seed {self.seed}",
                *self.kills,
                f"kills {len(self.kills)}, resumes from a checkpoint {self.resumes}, steps repeated {self.repeated}",
                f"final weights byte for byte those of an undisturbed run: {'yes' if self.identical else 'NO'}",
            ]
        )


class Job:
    """A training run under torchrun."""

    def __init__(
        self,
        directory: Path,
        ranks: int,
        epochs: int,
        restarts: int,
        *settings: str,
        data: Sequence[str] = SYNTHETIC,
    ) -> None:
        self.directory = directory
        self.settings = [*SETTINGS, *data, *settings, f"epochs={epochs}", f"output_dir={directory}"]
        directory.mkdir(parents=True)
        launcher = ["--standalone", f"--nproc_per_node={ranks}", f"--max-restarts={restarts}", "-m", "trainer.main"]
        self._log = (directory / "launcher.log").open("w")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "torch.distributed.run", *launcher, *self.settings],
            env={**os.environ, "OMP_NUM_THREADS": "1"}, stdout=self._log, stderr=subprocess.STDOUT,
            start_new_session=True,
        )  # fmt: skip

    def step(self) -> int:
        """The last step that every rank is known to have done."""
        try:
            lines = (self.directory / "metrics.jsonl").read_text().splitlines()
        except OSError:
            return 0
        return next((json.loads(line)["step"] for line in reversed(lines) if line.endswith("}")), 0)

    def rank(self, number: int) -> int | None:
        """The process of a rank, where it is alive."""
        for child in self._processes():
            try:
                environment = Path(f"/proc/{child}/environ").read_bytes().split(b"\0")
            except OSError:
                continue
            if f"RANK={number}".encode() in environment:
                return child
        return None

    def _processes(self) -> list[int]:
        """The processes that the launcher has started, each in a session of its own."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return [int(child) for child in children.read_text().split()] if children.is_file() else []

    def saving(self) -> bool:
        """Whether a checkpoint is being written: a folder that has no manifest yet and has just changed. An older one
        is what an earlier kill left."""
        try:
            folders = list((self.directory / "checkpoints").glob("step-*"))
            fresh = [folder for folder in folders if time.time() - folder.stat().st_mtime < WRITING_SECONDS]
        except OSError:  # removed meanwhile
            return False
        return any(not (folder / "manifest.json").exists() for folder in fresh)

    def end(self) -> None:
        """Leave nothing running."""
        running = self._processes()
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        for process in running:  # a stopped one would outlive its launcher
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        self._log.close()


def wait_for_step(job: Job, step: int) -> bool:
    """Wait until a step is done; False where the run ended or stands still."""
    deadline, last = time.monotonic() + RESULT_SECONDS, -1
    while (now := job.step()) < step:
        if now != last:
            deadline, last = time.monotonic() + RESULT_SECONDS, now
        if job.process.poll() is not None or time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def kill(job: Job, draw: random.Random, report: Report, while_saving: bool) -> None:
    """Kill a random rank at the next moment at which a checkpoint is being written, or at which none is."""
    end = time.monotonic() + 10
    while job.saving() != while_saving and time.monotonic() < end and job.process.poll() is None:
        time.sleep(0.0005)
    saving, number = job.saving(), draw.randrange(report.ranks)
    process = job.rank(number)
    if process is None:
        return
    os.kill(process, signal.SIGKILL)
    moment = "while a checkpoint was written" if saving else "between checkpoints"
    report.kills.append(f"  killed rank {number} after step {job.step()}, {moment}")


def count_resumes(job: Job, report: Report) -> None:
    """Read from the run's own log where it went on, and how much it did twice."""
    at_kill = [int(line.split("after step ")[1].split(",")[0]) for line in report.kills]
    log = (job.directory / "console.log").read_text().splitlines()
    begun = [line for line in log if line.startswith("goes on after step ")]
    for line in begun:
        step = int(line.removeprefix("goes on after step ").split(",")[0])
        while at_kill and (done := at_kill.pop(0)) < step:
            report.repeated += done  # a kill before the first checkpoint
        report.repeated += done - step
    report.resumes = len(begun)


def identical(one: Path, other: Path) -> bool:
    """Whether two runs left the same weights, byte for byte."""
    first, second = (load_file(path / "model.safetensors") for path in (one, other))
    return first.keys() == second.keys() and all(first[name].tobytes() == second[name].tobytes() for name in first)


def chaos(kills: int, seed: int, ranks: int, folder: Path) -> Report:
    """Both runs, and what came of them."""
    draw = random.Random(seed)
    epochs = max(2, -(-kills * 4 * SAVE_EVERY // STEPS_PER_EPOCH))
    report = Report(seed, ranks, epochs * STEPS_PER_EPOCH)
    calm = Job(folder / "undisturbed", ranks, epochs, 0)
    try:
        if calm.process.wait(3600) != 0:
            raise RuntimeError(f"the undisturbed run failed; see {calm.directory / 'launcher.log'}")
    finally:
        calm.end()
    job = Job(folder / "disturbed", ranks, epochs, kills)
    try:
        for number in range(kills):
            # One kill in each stretch of the run, so that all of them come before its end.
            stretch = (report.steps - 2 * SAVE_EVERY) // kills
            if not wait_for_step(job, number * stretch + draw.randint(1, stretch)):
                raise RuntimeError(f"the run did not survive; see {job.directory / 'launcher.log'}")
            kill(job, draw, report, while_saving=number % 2 == 1)
        if job.process.wait(3600) != 0:
            raise RuntimeError(f"the run did not survive; see {job.directory / 'launcher.log'}")
    finally:
        job.end()
    count_resumes(job, report)
    report.identical = identical(calm.directory, job.directory)
    return report


def main() -> None:
    """Parse the arguments, run, and print or write the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20, help="how many ranks are killed (20)")
    parser.add_argument("--seed", type=int, default=0, help="which ranks, and when (0)")
    parser.add_argument("--ranks", type=int, default=3, help="ranks of the run (3)")
    parser.add_argument("--folder", type=Path, help="where the two runs go; by default a temporary folder")
    options = parser.parse_args()
    for name in ("kills", "ranks"):
        if getattr(options, name) < 1:
            parser.error(f"argument --{name}: {getattr(options, name)} must be at least 1")
    if options.folder and options.folder.is_dir() and any(options.folder.iterdir()):
        parser.error(f"--folder {options.folder} is not empty")
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        try:
            report = chaos(options.kills, options.seed, options.ranks, folder)
        except RuntimeError as error:
            sys.exit(f"error: {error}")
    print(report.text())
    sys.exit(0 if report.identical and len(report.kills) == options.kills else 1)


if __name__ == "__main__":
    main()
