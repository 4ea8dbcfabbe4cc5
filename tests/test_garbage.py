"""When garbage is searched for."""

import gc
import subprocess
import sys

from trainer.garbage import searched_from_now


def test_what_was_there_before_is_left_alone_until_the_end() -> None:
    cycle: list[object] = []
    cycle.append(cycle)
    gc.disable()
    with searched_from_now():
        assert gc.isenabled() and gc.get_freeze_count() > 0
        number = id(cycle)
        del cycle
        gc.collect()
        assert number not in map(id, gc.get_objects())  # frozen: no generation has it
    assert gc.get_freeze_count() == 0
    assert gc.collect() > 0


def test_the_entry_searches_for_nothing_and_its_import_changes_nothing() -> None:
    program = """
import gc, runpy, sys
import trainer.main
print(gc.isenabled())
sys.argv[1:] = ["--cfg", "job"]
runpy.run_module("trainer.main", run_name="__main__", alter_sys=True)
print(gc.isenabled())
"""
    run = subprocess.run([sys.executable, "-W", "ignore", "-c", program], capture_output=True, text=True, timeout=120)
    lines = run.stdout.splitlines()
    assert (lines[0], lines[-1]) == ("True", "False"), run.stdout + run.stderr
