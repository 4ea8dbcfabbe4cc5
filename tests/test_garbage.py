"""When Python searches for garbage: see the first lines of trainer/main.py."""

import gc
import subprocess
import sys
from pathlib import Path

from tests.command_line import TINY, CommandLine


def test_training_searches(command: CommandLine, tmp_path: Path) -> None:
    gc.disable()
    try:
        assert command(*TINY, f"output_dir={tmp_path}", "max_steps=1").status == 0
        assert gc.isenabled()
    finally:
        gc.enable()


def test_the_entry_does_not_and_importing_it_changes_nothing() -> None:
    program = """
import gc, runpy, sys
import trainer.main
print(gc.isenabled(), gc.get_freeze_count())
sys.argv[1:] = ["--cfg", "job"]
runpy.run_module("trainer.main", run_name="__main__", alter_sys=True)
print(gc.isenabled(), gc.get_freeze_count() > 100_000)
"""
    run = subprocess.run([sys.executable, "-W", "ignore", "-c", program], capture_output=True, text=True, timeout=120)
    lines = run.stdout.splitlines()
    assert (lines[0], lines[-1]) == ("True 0", "False True"), run.stdout + run.stderr
