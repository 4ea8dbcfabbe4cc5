"""Starting real torchrun jobs, with a free port, a hard time limit and nothing left behind."""

import contextlib
import gc
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.context import ForkServerContext
from pathlib import Path

import pytest
import torch
import torch.distributed.run
from hydra._internal.hydra import Hydra

import trainer.main
from tests.command_line import mode_of_the_flags

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


@pytest.fixture(scope="session")
def server() -> ForkServerContext:
    """A process that has imported torch and the trainer, and forks those that need them; importing takes longer than
    most jobs here. It ends with this process."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch._dynamo", "torch.distributed.run", "trainer.main", __name__])
    return context


@pytest.fixture(scope="session")
def forked(server: ForkServerContext) -> Job:
    """``torchrun`` once more, it and its ranks forked from ``server``."""

    def job(
        ranks: int, cwd: Path, *arguments: str, program: str = trainer.main.__file__, timeout: float = TIMEOUT_SECONDS
    ) -> Finished:
        options = ["--standalone", f"--nproc_per_node={ranks}", "--start-method=fork", "--run-path"]
        return run_forked(server, torch.distributed.run.main, [*options, program, *arguments], cwd, timeout)

    return job


@pytest.fixture(scope="session")
def forked_alone(server: ForkServerContext) -> Job:
    """``alone`` once more, forked from ``server``."""

    def job(cwd: Path, *arguments: str, program: Callable[[], object] = trainer.main.main) -> Finished:
        return run_forked(server, program, list(arguments), cwd)

    return job


def run_forked(
    server: ForkServerContext,
    program: Callable[[], object],
    arguments: list[str],
    cwd: Path,
    timeout: float = TIMEOUT_SECONDS,
) -> Finished:
    """Run a program's ``main`` in a process that ``server`` forks; the rest as in ``run``."""
    with tempfile.NamedTemporaryFile() as out, tempfile.NamedTemporaryFile() as err:
        process = server.Process(target=_call, args=(program, arguments, cwd, out.name, err.name))
        process.start()
        process.join(timeout)
        ended, left = process.exitcode is not None, session(process.pid)
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.join()
        finished = Finished(process.exitcode or 0, out.read().decode(), err.read().decode())
    assert ended, f"{' '.join(arguments)} did not end within {timeout} s\n{finished.out}\n{finished.err}"
    assert not left, f"{' '.join(arguments)} left processes behind"
    return finished


def _call(program: Callable[[], object], arguments: list[str], cwd: Path, out: str, err: str) -> None:
    """In the new process."""
    os.setsid()
    for name, descriptor in ((out, 1), (err, 2)):
        os.dup2(os.open(name, os.O_WRONLY), descriptor)
    os.chdir(cwd)
    gc.freeze()
    # A launcher that forks its ranks would hand them its own answer to a signal, which keeps them from ending.
    os.register_at_fork(after_in_child=lambda: signal.signal(signal.SIGTERM, signal.SIG_DFL))
    os.environ["OMP_NUM_THREADS"] = "1"
    os.environ.pop("HYDRA_FULL_ERROR", None)
    torch.set_num_threads(1)
    sys.argv[1:] = arguments
    Hydra.get_mode = mode_of_the_flags
    program()


def session(leader: int | None) -> list[int]:
    """The processes of a session. What is forked here stays in it, and ``/proc`` shows no mark in its environment."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if os.getsid(int(folder.name)) == leader:
                found.append(int(folder.name))
    return found
