"""How long a run takes from the command to its first step: ``python scripts/benchmark.py --start``."""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import jobs

BARE = """
import torch, torch.distributed as dist
dist.init_process_group("gloo")
dist.barrier()
print("ready", flush=True)
dist.destroy_process_group()
"""
"""What any program with ranks has to do before its first step."""

WAIT_SECONDS = 120.0


def measure(ranks: int, rounds: int, overrides: Sequence[str]) -> None:
    """Time the start of the trainer and of a program that only imports torch and makes a gloo group, in turn."""
    bare: list[float] = []
    full: list[float] = []
    for number in range(rounds):
        with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
            path = Path(folder)
            bare.append(_bare(ranks, path))
            full.append(_trainer(ranks, path, overrides))
        print(f"  round {number + 1}: torch and a group {bare[-1]:5.2f} s, first step {full[-1]:5.2f} s", flush=True)
    more = statistics.median(b - a for a, b in zip(bare, full, strict=True))
    print(
        f"{ranks} ranks: the first step is done {statistics.median(full):.2f} s after the command, {more:.2f} s later "
        f"than torch is imported and a group made"
    )


def _bare(ranks: int, folder: Path) -> float:
    program, output = folder / "bare.py", folder / "bare.log"
    program.write_text(BARE)
    return _seconds_until(ranks, [str(program)], output, lambda: output.read_text().count("ready") == ranks)


def _trainer(ranks: int, folder: Path, overrides: Sequence[str]) -> float:
    run = folder / "run"
    settings = ["-m", "trainer.main", *jobs.FIXED, "epochs=1", "log.every_steps=1", f"output_dir={run}", *overrides]
    metrics = run / "metrics.jsonl"
    return _seconds_until(ranks, settings, folder / "run.log", lambda: metrics.is_file() and metrics.stat().st_size > 0)


def _seconds_until(ranks: int, program: Sequence[str], output: Path, ready: Callable[[], bool]) -> float:
    """Seconds from the start of a torchrun job until ``ready``; the job is then waited for. Raises ``JobError``."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={ranks}"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(jobs.ROOT)}
    begin = time.perf_counter()
    with output.open("w") as stream:
        job = subprocess.Popen([*launcher, *program], env=environment, stdout=stream, stderr=subprocess.STDOUT)
    while not ready():
        if job.poll() is not None or time.perf_counter() - begin > WAIT_SECONDS:
            job.terminate()  # torchrun ends its ranks
            job.wait()
            raise jobs.JobError(f"{' '.join(program)} did not begin:\n{jobs.failure(output.read_text())}")
        time.sleep(0.01)
    seconds = time.perf_counter() - begin
    job.wait()
    return seconds
