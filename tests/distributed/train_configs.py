"""Trains one configuration after another: ``train_configs.py FILE``, a JSON list of them with their ``output_dir``.

In a sweep Hydra would compose each of them twice on every rank, which takes longer than a few steps.
"""

import json
import sys
from pathlib import Path

from trainer.launch import Launch
from trainer.rank import Rank
from trainer.run import Run
from trainer.rundir import RunDirectory
from trainer.training import train


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
