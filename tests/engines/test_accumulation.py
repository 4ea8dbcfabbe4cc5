"""A batch that passes in parts gives the update of the whole batch."""

from pathlib import Path

import torch
from safetensors.torch import load_file

from tests.command_line import CommandLine

VIT = (
    "engine=sequential", "dataset=synthetic", "dataset.train_size=44", "dataset.test_size=8", "dataset.image_size=8",
    "model=vit_tiny", "model.depth=2", "model.width=16", "model.heads=2", "local_loss=greedy", "partition.blocks=2",
    "batch_size=8", "epochs=2", "threads=1", "device=cpu", "tracker=none",
)  # fmt: skip
"""Without batch norm, which would see each part alone; the last training images do not fill a batch."""


def test_parts_give_the_update_of_the_whole_batch(command: CommandLine, tmp_path: Path) -> None:
    for parts in ("1", "4"):
        outcome = command(*VIT, f"update.accumulate={parts}", f"output_dir={tmp_path / parts}")
        assert outcome.status == 0, outcome.err
    whole, parted = (load_file(tmp_path / parts / "model.safetensors") for parts in ("1", "4"))
    for name in whole:
        torch.testing.assert_close(parted[name], whole[name], rtol=1e-4, atol=1e-5)
