"""W&B through the command line: a run that goes on stays the same W&B run, and no file of a run tells a secret."""

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.command_line import TINY

SECRETS = {"WANDB_API_KEY": "0123456789abcdef" * 2 + "01234567", "CLUSTER_TOKEN": "a-token-that-nobody-may-read"}
ROOT = Path(__file__).parents[2]


def train(run: Path, *settings: str) -> str:
    """A process of its own: W&B keeps a key that it has seen until the process ends."""
    home = {"HOME": str(run.parent / "home"), "NETRC": str(run.parent / "netrc"), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "trainer.main", *TINY, "tracker=wandb", "tracker.mode=offline", *settings]
    done = subprocess.run(
        [*command, f"output_dir={run}"], env={**os.environ, **home, **SECRETS}, cwd=run.parent, capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0 and "W&B failed" not in done.stdout, done.stdout + done.stderr
    return done.stdout


def ids(run: Path) -> list[str]:
    """The W&B id that each whole checkpoint names."""
    manifests = sorted(run.glob("checkpoints/*/manifest.json"))
    return [json.loads(manifest.read_text())["tracker"]["wandb_id"] for manifest in manifests]


def test_a_run_that_goes_on_keeps_its_id_and_no_file_has_a_secret(tmp_path: Path) -> None:
    run = tmp_path / "run"
    train(run, "max_steps=8")
    assert "goes on after step 8" in train(run)
    (name,) = set(ids(run))
    assert len(ids(run)) == 2
    folders = sorted(path.name for path in run.glob("wandb/offline-run-*"))
    assert len(folders) == 2 and all(folder.endswith(f"-{name}") for folder in folders)

    files = [path for path in run.rglob("*") if path.is_file()]
    assert any(path.suffix == ".wandb" for path in files) and run / "console.log" in files
    for secret in (*SECRETS.values(), *SECRETS):
        assert [path for path in files if secret.encode() in path.read_bytes()] == []
