"""Two launchers with ``--nnodes=2``, as on two machines: they share one run directory, and both say why a run fails."""

import shutil
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.distributed.conftest import TINY, Finished, Job, run
from tests.distributed.test_identity import assert_identical, weights

SMALL = (*TINY, "model.depth=8", "model.width=4", "partition.points=[stem]")


def can_hide() -> bool:
    """Whether a process may have file systems of its own."""
    mount = ["unshare", "-Urm", "mount", "-t", "tmpfs", "none", "/mnt"]
    return bool(shutil.which("unshare")) and subprocess.run(mount, capture_output=True, check=False).returncode == 0


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def machines(cwd: Path, overrides: list[str], second: tuple[str, ...] = ()) -> list[Finished]:
    """A rank on each of two machines; ``second`` is what starts the launcher of the second one."""
    options = ["--nnodes=2", "--nproc_per_node=1", "--master-addr=127.0.0.1", f"--master-port={free_port()}"]
    launcher = [sys.executable, "-m", "torch.distributed.run", *options]
    with ThreadPoolExecutor(2) as pool:
        jobs = [
            pool.submit(run, [*prefix, *launcher, f"--node-rank={number}", "-m", "trainer.main", *overrides], cwd)
            for number, prefix in enumerate(((), second))
        ]
        return [job.result() for job in jobs]


def errors(job: Finished) -> list[str]:
    return [line for line in job.err.splitlines() if line.startswith("error: ")]


def test_two_machines_share_a_directory_and_compute_what_one_process_does(alone: Job, tmp_path: Path) -> None:
    first, second = machines(tmp_path, [*SMALL, "output_dir=two"])
    assert (first.status, second.status) == (0, 0), first.err + second.err
    assert "run directory: " in first.out and second.out == ""
    files = {path.relative_to(tmp_path / "two").as_posix() for path in (tmp_path / "two").rglob("*")}
    assert {f"checkpoints/step-00000008/rank-{rank}.safetensors" for rank in (0, 1)} <= files
    assert not [name for name in files if name.startswith(".") or name.endswith(".tmp")]
    assert alone(tmp_path, *SMALL, "engine=sequential", "output_dir=one").status == 0
    assert_identical(weights(tmp_path / "two"), weights(tmp_path / "one"))


def test_an_error_on_one_machine_is_read_on_both(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    first, second = machines(tmp_path, [*SMALL, "output_dir=file/run"])
    assert first.status and second.status
    assert errors(first) == ["error: output_dir=file/run can't be made: Not a directory"]
    assert errors(second) == ["error: rank 0 failed: output_dir=file/run can't be made: Not a directory"]


@pytest.mark.skipif(not can_hide(), reason="no file system can be mounted here")
def test_a_directory_that_the_second_machine_does_not_see(tmp_path: Path) -> None:
    directory = tmp_path / "run"
    directory.mkdir()
    hide = ("unshare", "-Urm", "sh", "-c", f'mount -t tmpfs none {directory} && exec "$@"', "sh")
    both = machines(tmp_path, [*SMALL, f"output_dir={directory}", "epochs=1000"], hide)
    for job in both:
        (line,) = errors(job)
        assert f"output_dir={directory} is not shared: what rank 0 writes there is not seen on " in line
        assert job.status != 0 and job.out == ""
    assert not list(directory.iterdir())
