"""The records of a run: what listeners are told, and what ``metrics.jsonl`` holds."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainer.partition.partition import Partition

Record = dict[str, Any]
"""One line of ``metrics.jsonl``: plain JSON values under fixed names."""


@dataclass(frozen=True)
class RunFacts:
    """What is known of a run when it starts.

    Attributes:
        directory: where its files go.
        config: the whole resolved configuration, plain values.
        partition: its blocks.
        exits: the cut points after which a local classifier sits; what learns are these blocks and the last.
        ranks: how many processes it has.
        step_images: how many images one training step has.
        epochs: how many it has in all.
        steps_per_epoch: training steps of each.
        last_step: where it ends.
        description: sentences for the terminal: how it runs, on what.
        speed_note: why its speeds say little (ranks that share cores), or an empty string.
    """

    directory: Path
    config: dict[str, Any]
    partition: Partition
    exits: Sequence[str]
    ranks: int
    step_images: int
    epochs: int
    steps_per_epoch: int
    last_step: int
    description: Sequence[str]
    speed_note: str
