"""Trains one configuration after another: ``train_configs.py FILE``, a JSON list of them with their ``output_dir``.

In a sweep Hydra would compose each of them twice on every rank, which takes longer than a few steps.
"""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trainer.launch import Launch
from trainer.rank import Rank
from trainer.run import Run
from trainer.rundir import RunDirectory
from trainer.training import train


def listed(folder: Path, configs: Mapping[str, Mapping[str, Any]]) -> str:
    """Write a file of configurations, by name, whose run directories are ``folder/<name>``."""
    folder.mkdir()
    file = folder / "configs.json"
    file.write_text(json.dumps([{**config, "output_dir": str(folder / name)} for name, config in configs.items()]))
    return str(file)


def main() -> None:
    launch = Launch.from_environment().connected()
    for job, config in enumerate(json.loads(Path(sys.argv[1]).read_text())):
        rank = Rank.join(launch, job, config["device"], config["threads"], config["timeout_seconds"])
        directory = RunDirectory(Path(config["output_dir"]))
        directory.path.mkdir(exist_ok=True)
        train(Run(config, rank), directory, "")
        rank.leave()


if __name__ == "__main__":
    main()
