"""The example of docs/extending.md, exactly as it stands there."""

import json
import os
import re
import sys
from pathlib import Path

from tests.distributed.conftest import run

ROOT = Path(__file__).parents[2]
FENCED = re.compile(r"```(\w+)\n(.*?)```", re.S)


def test_the_example_runs_as_it_stands(tmp_path: Path) -> None:
    commands = []
    for kind, text in FENCED.findall((ROOT / "docs" / "extending.md").read_text()):
        if kind == "bash":
            commands.append(text)
        else:
            file = tmp_path / text.splitlines()[0].removeprefix("# ")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
    assert len(commands) == 2
    accuracies = {}
    # The package is installed for a user; here it comes from the checkout, and torchrun from beside this Python.
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    for command, name in zip(commands, ("first", "second"), strict=True):
        text = command.replace("PYTHONPATH=.", f"PYTHONPATH=.:{ROOT}")
        done = run(["bash", "-c", text.replace("torchrun", "torchrun --standalone")], tmp_path, {"PATH": path})
        assert done.status == 0, done.err
        summary = json.loads((tmp_path / name / "metrics.jsonl").read_text().splitlines()[-1])
        assert summary["kind"] == "summary" and len(summary["cut_points"]) == 1
        assert summary["steps"] == 4 and 0 <= summary["test_accuracy"] <= 1
        accuracies[name] = summary["test_accuracy"]
        config = (tmp_path / name / "config.yaml").read_text()
        assert all(f"_target_: mylab.{target}" in config for target in ("confident.Conf", "plain.plain", "stripes.Str"))
    assert (tmp_path / "accuracies.txt").read_text() == f"1 {accuracies['first']:.4f}\n"
