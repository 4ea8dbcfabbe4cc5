"""Two launchers with ``--nnodes=2``, as on two machines: they survive a kill together, and both say why a run fails."""

import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.context import ForkServerContext
from pathlib import Path

import pytest
import torch.distributed.run

import trainer.main
from tests.distributed.conftest import TINY, Finished, Job, run, run_forked
from tests.distributed.test_identity import assert_identical, weights

SMALL = (*TINY, "model.depth=8", "model.width=8", "partition.points=[stem]")

MAIN = trainer.main.__file__

DIES_ONCE = f"""
import os, pathlib, runpy, signal, threading, time

def die():
    while not list(pathlib.Path("two").glob("checkpoints/*/manifest.json")):
        time.sleep(0.001)
    pathlib.Path("died").touch()
    os.kill(os.getpid(), signal.SIGKILL)

if os.environ["RANK"] == "1" and not os.path.exists("died"):
    threading.Thread(target=die, daemon=True).start()
runpy.run_path({MAIN!r}, run_name="__main__")
"""
"""Rank 1 is killed when it sees the first checkpoint."""


def can_hide() -> bool:
    """Whether a process may have file systems of its own."""
    mount = ["unshare", "-Urm", "mount", "-t", "tmpfs", "none", "/mnt"]
    return bool(shutil.which("unshare")) and subprocess.run(mount, capture_output=True, check=False).returncode == 0


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


Machines = Callable[..., list[Finished]]


@pytest.fixture(scope="module")
def machines(server: ForkServerContext) -> Machines:
    """``machines(cwd, *overrides)``: a rank on each of two machines. ``second`` is what starts the launcher of the
    second one, if anything does."""

    def jobs(
        cwd: Path, *overrides: str, second: tuple[str, ...] = (), program: str = MAIN, restarts: int = 0
    ) -> list[Finished]:
        options = ["--nnodes=2", "--nproc_per_node=1", f"--max-restarts={restarts}", "--rdzv-backend=c10d"]
        options += [f"--rdzv-id={cwd.name}", f"--rdzv-endpoint=127.0.0.1:{free_port()}"]

        def launcher(before: tuple[str, ...]) -> Finished:
            if before:
                command = [*before, sys.executable, "-m", "torch.distributed.run", *options, "-m", "trainer.main"]
                return run([*command, *overrides], cwd)
            arguments = [*options, "--start-method=fork", "--run-path", program, *overrides]
            return run_forked(server, torch.distributed.run.main, arguments, cwd)

        with ThreadPoolExecutor(2) as pool:
            return list(pool.map(launcher, ((), second)))

    return jobs


def errors(job: Finished) -> list[str]:
    return [line for line in job.err.splitlines() if line.startswith("error: ")]


def test_a_kill_on_one_of_two_machines_costs_nothing(machines: Machines, forked_alone: Job, tmp_path: Path) -> None:
    settings = (*SMALL, "epochs=50", "checkpoint.every_steps=5")
    program = tmp_path / "dies_once.py"
    program.write_text(DIES_ONCE)
    both = machines(tmp_path, *settings, "output_dir=two", program=str(program), restarts=1)
    assert [job.status for job in both] == [0, 0], [job.err for job in both]
    assert (tmp_path / "died").exists() and "goes on after step " in (tmp_path / "two/console.log").read_text()
    names = {path.name for path in (tmp_path / "two").rglob("*")}
    assert {"rank-0.safetensors", "rank-1.safetensors", "manifest.json"} <= names
    assert not [name for name in names if name.startswith(".") or name.endswith(".tmp")]
    assert forked_alone(tmp_path, *settings, "engine=sequential", "output_dir=one").status == 0
    assert_identical(weights(tmp_path / "two"), weights(tmp_path / "one"))


def test_an_error_on_one_machine_is_read_on_both(machines: Machines, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    said = sorted(line for job in machines(tmp_path, *SMALL, "output_dir=file/run") for line in set(errors(job)))
    assert said == [
        "error: output_dir=file/run can't be made: Not a directory",
        "error: rank 0 failed: output_dir=file/run can't be made: Not a directory",
    ]


@pytest.mark.skipif(not can_hide(), reason="no file system can be mounted here")
def test_a_directory_that_the_second_machine_does_not_see(machines: Machines, tmp_path: Path) -> None:
    directory = tmp_path / "run"
    directory.mkdir()
    hide = ("unshare", "-Urm", "sh", "-c", f'mount -t tmpfs none {directory} && exec "$@"', "sh")
    for job in machines(tmp_path, *SMALL, f"output_dir={directory}", "epochs=1000", second=hide):
        (line,) = set(errors(job))
        assert f"output_dir={directory} is not shared: what rank 0 writes there is not seen on " in line
        assert job.status != 0 and job.out == ""
    assert not list(directory.iterdir())
