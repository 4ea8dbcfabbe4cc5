"""Starting real torchrun jobs, with a free port, a hard time limit and nothing left behind."""

import contextlib
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

TIMEOUT_SECONDS = 240

MARK = "PPLL_TEST_JOB"
"""The environment variable that all processes of one job have."""

TINY = (
    "dataset=synthetic",
    "dataset.train_size=32",
    "dataset.test_size=12",
    "dataset.image_size=16",
    "batch_size=8",
    "epochs=2",
    "device=cpu",
    "threads=1",
    "tracker=none",
)
"""Two epochs of four steps, and a last test batch that is short."""


@dataclass(frozen=True)
class Finished:
    """A job that has ended: its exit status, and what it printed."""

    status: int
    out: str
    err: str


Job = Callable[..., Finished]


def run(
    command: list[str], cwd: Path, environment: Mapping[str, str] | None = None, timeout: float = TIMEOUT_SECONDS
) -> Finished:
    """Run a command; kill all that it has started if it takes too long, and see that nothing is left of it when it has
    ended."""
    mark = uuid.uuid4().hex
    own = {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2]), MARK: mark}
    env = {**os.environ, **own, **(environment or {})}
    env.pop("HYDRA_FULL_ERROR", None)  # tests in this process may have set it
    process = subprocess.Popen(
        command, cwd=cwd, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    try:
        out, err = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        for left in left_behind(mark):
            os.kill(left, signal.SIGKILL)
        out, err = process.communicate()
        pytest.fail(f"{' '.join(command)} did not end within {timeout} s\n{out}\n{err}")
    assert not left_behind(mark), f"{' '.join(command)} left processes behind"
    return Finished(process.returncode, out, err)


def left_behind(mark: str) -> list[int]:
    """The processes that have ``mark`` in their environment; torchrun gives each rank a session of its own."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if f"{MARK}={mark}".encode() in (folder / "environ").read_bytes().split(b"\0"):
                found.append(int(folder.name))
    return found


@pytest.fixture(scope="session")
def torchrun() -> Job:
    """``torchrun(ranks, cwd, *overrides)`` as a user types it."""

    def job(
        ranks: int, cwd: Path, *overrides: str, program: Sequence[str] = ("-m", "trainer.main"), **options: float
    ) -> Finished:
        launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={ranks}"]
        return run([*launcher, *program, *overrides], cwd, **options)  # type: ignore[arg-type]

    return job


@pytest.fixture(scope="session")
def alone() -> Job:
    """``alone(cwd, *overrides)``: one process without torchrun."""

    def job(cwd: Path, *overrides: str) -> Finished:
        return run([sys.executable, "-m", "trainer.main", *overrides], cwd)

    return job
