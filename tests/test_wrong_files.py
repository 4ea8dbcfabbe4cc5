"""Files that a run can't begin with, and settings that a run can't go on with, each with the sentence it must give."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.command_line import TINY, CommandLine, assert_one_sentence


def arrays() -> dict[str, np.ndarray]:
    images, labels = np.zeros((8, 8, 8, 3), np.uint8), np.arange(8) % 2
    return {"x_train": images, "y_train": labels, "x_test": images, "y_test": labels}


def without_test(file: Path) -> None:
    np.savez(file, **{name: array for name, array in arrays().items() if "test" not in name})


def of_floats(file: Path) -> None:
    np.savez(file, **{**arrays(), "x_train": np.zeros((8, 8, 8, 3))})


def with_objects(file: Path) -> None:
    np.savez(file, **{**arrays(), "y_train": np.array([{}] * 8, dtype=object)})


def truncated(file: Path) -> None:
    np.savez(file, **arrays())
    file.write_bytes(file.read_bytes()[:-200])


def no_zip(file: Path) -> None:
    file.write_bytes(b"PK\x03\x04" + bytes(100))


def of_other_lengths(file: Path) -> None:
    np.savez(file, **{**arrays(), "y_train": np.zeros(7, int)})


def with_channels_first(file: Path) -> None:
    np.savez(file, **{**arrays(), "x_train": np.zeros((8, 3, 8, 8), np.uint8)})


def with_labels_that_are_no_classes(file: Path) -> None:
    np.savez(file, **{**arrays(), "y_train": 10**8 * (np.arange(8) % 2)})


FILES: dict[Callable[[Path], None], str] = {
    without_test: "lacks x_test, y_test",
    of_floats: "x_train in ",
    with_objects: "can't be read as an .npz file of plain arrays",
    truncated: "can't be read as an .npz file of plain arrays",
    no_zip: "can't be read as an .npz file of plain arrays",
    with_channels_first: "which looks like (N, C, H, W); images must be of shape (N, H, W, C): numpy.moveaxis(x_train",
    with_labels_that_are_no_classes: "has labels up to 100000000 but only 16 images",
    of_other_lengths: "has 8 train images but 7 train labels",
    lambda file: None: "is no file; it must be an .npz file",
}


@pytest.mark.parametrize("make", FILES)
def test_npz_files(make: Callable[[Path], None], command: CommandLine, tmp_path: Path) -> None:
    file = tmp_path / "data.npz"
    make(file)
    model = ("engine=sequential", "model.depth=8", "batch_size=4", "tracker=none")
    outcome = command(*model, "dataset=npz", f"dataset.path={file}", f"output_dir={tmp_path}/run", cwd=tmp_path)
    assert_one_sentence(outcome, FILES[make])


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("ended") / "run"


CHANGES = {
    "seed=1": "seed=1 (was 0): this would change the result",
    "model.width=16": "model.width=16 (was 8): this would change the result",
    "optimizer.lr=0.5": "optimizer.lr=0.5 (was 0.1)",
    "optimizer=adamw": "optimizer._target_=torch.optim.AdamW (was torch.optim.SGD)",
    "epochs=4": "epochs=4 (was 3)",
    "precision=bf16": "precision=bf16 (was fp32)",
    "batch_size=16": "batch_size=16 (was 8)",
    "compile=true": "compile=true (was false)",
    "on_nan=skip": "on_nan=skip (was stop)",
    "local_loss=dgl": "local_loss._target_=trainer.local_losses.dgl.DGL (was trainer.local_losses.greedy.Greedy)",
    "scheduler=constant": "scheduler._target_=trainer.schedules.Constant (was trainer.schedules.Cosine)",
    "dataset.noise=0.5": "dataset.noise=0.5 (was 0.7)",
    "max_steps=20": "max_steps=20 lies before step 24, from where ",
    "resume=never": "resume=never, but output_dir=",
}


@pytest.mark.parametrize("change", CHANGES)
def test_changes_of_a_run_that_goes_on(change: str, ended: Path, command: CommandLine) -> None:
    if not ended.exists():
        assert command(*TINY, f"output_dir={ended}").status == 0
    before = (ended / "metrics.jsonl").read_bytes()
    assert_one_sentence(command(*TINY, f"output_dir={ended}", change), CHANGES[change])
    assert (ended / "metrics.jsonl").read_bytes() == before


def escape(checkpoint: Path) -> None:
    manifest = json.loads((checkpoint / "manifest.json").read_text())
    manifest["parts"][0]["file"] = "../../../../etc/passwd"
    (checkpoint / "manifest.json").write_text(json.dumps(manifest))


def truncate(checkpoint: Path) -> None:
    part = checkpoint / "rank-0.safetensors"
    part.write_bytes(part.read_bytes()[:100])


def remove(checkpoint: Path) -> None:
    (checkpoint / "rank-0.safetensors").unlink()


def garble(checkpoint: Path) -> None:
    (checkpoint / "manifest.json").write_text("{" * 100_000)


DAMAGES = {
    escape: "'../../../../etc/passwd' is no name of a checkpoint's file",
    truncate: "rank-0.safetensors is damaged: it has 100 bytes instead of ",
    remove: "rank-0.safetensors can't be read: No such file or directory",
    garble: "manifest.json is no JSON: ",
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_checkpoints(
    damage: Callable[[Path], None],
    ended: Path,
    command: CommandLine,
    tmp_path: Path,
) -> None:
    if not ended.exists():
        assert command(*TINY, f"output_dir={ended}").status == 0
    checkpoint = tmp_path / "step-00000024"
    shutil.copytree(ended / "checkpoints" / checkpoint.name, checkpoint)
    damage(checkpoint)
    outcome = command(*TINY, f"output_dir={tmp_path}/run", f"resume={checkpoint}", "dry_run=true")
    assert_one_sentence(outcome, DAMAGES[damage])


HOSTILE = {
    b"": "can't be read as a safetensors file",
    b"\xff" * 100: "can't be read as a safetensors file",  # a head longer than any memory
    b"\x02" + bytes(7) + b"{}": "has no ",
}


@pytest.mark.parametrize("content", HOSTILE)
def test_files_that_are_no_weights(content: bytes, command: CommandLine, tmp_path: Path) -> None:
    file = tmp_path / "weights.safetensors"
    file.write_bytes(content)
    outcome = command(*TINY, f"init_from={file}", f"output_dir={tmp_path}/run", cwd=tmp_path)
    assert_one_sentence(outcome, f"{file} {HOSTILE[content]}")
