"""Datasets in memory: digits, synthetic, npz, and what is said of bad ones."""

from pathlib import Path

import numpy as np
import pytest
import torch

from trainer.data.digits import Digits
from trainer.data.images import DataSpec, Images, Split, checked
from trainer.data.npz import Npz
from trainer.data.synthetic import Synthetic
from trainer.errors import SettingError


def arrays(**changes: object) -> dict[str, object]:
    rng = np.random.default_rng(0)
    good = {
        "x_train": rng.integers(0, 256, (6, 4, 5, 3), dtype=np.uint8),
        "y_train": np.array([0, 1, 2, 0, 1, 2]),
        "x_test": rng.integers(0, 256, (3, 4, 5, 3), dtype=np.uint8),
        "y_test": np.array([0, 1, 2], dtype=np.uint8),
    }
    return {key: value for key, value in {**good, **changes}.items() if value is not None}


def test_digits_are_split_evenly_and_for_ever() -> None:
    images = Digits().load()
    assert (len(images.train), len(images.test), images.num_classes) == (1437, 360, 10)
    assert images.train.images.shape[1:] == (3, 8, 8) and int(images.train.images.max()) == 255
    counts = torch.bincount(images.test.labels)
    assert counts.min() >= 34 and counts.max() <= 37
    assert torch.equal(images.test.images, Digits().load().test.images)
    resized = images.resized(32)
    assert resized.test.images.shape == (360, 3, 32, 32) and resized.test.images.dtype == torch.uint8


def test_npz_keeps_pixels_and_labels(tmp_path: Path) -> None:
    content = arrays()
    np.savez(tmp_path / "a.npz", **content)
    images = Npz(str(tmp_path / "a.npz")).load()
    assert images.train.images.shape == (6, 3, 4, 5) and images.num_classes == 3
    assert images.train.images[2, 1, 3, 4] == content["x_train"][2, 3, 4, 1]
    assert images.test.labels.tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"y_test": None}, "lacks y_test; it has x_train, y_train, x_test"),
        ({"x_train": np.zeros((6, 4, 5), np.uint8)}, r"x_train in .* is uint8 of shape \(6, 4, 5\)"),
        ({"x_train": np.zeros((6, 4, 5, 3), np.float32)}, "x_train in .* is float32"),
        ({"y_train": np.zeros((6, 1), int)}, r"y_train in .* of shape \(6, 1\); labels must be whole numbers"),
        ({"y_train": np.zeros(6)}, "y_train in .* is float64"),
        ({"y_train": np.zeros(5, int)}, "has 6 train images but 5 train labels"),
        ({"x_test": np.zeros((0, 4, 5, 3), np.uint8), "y_test": np.zeros(0, int)}, "has no test images"),
        ({"x_test": np.zeros((3, 4, 4, 3), np.uint8)}, "train images of shape .* but test images of shape"),
        ({"y_test": np.array([0, 1, -1])}, "has labels from -1 to 2"),
        ({"y_train": np.zeros(6, int), "y_test": np.zeros(3, int)}, "needs at least 2 classes"),
        ({"y_train": np.array([0, "a", 1, 1, 1, 1], object)}, "can't be read as an .npz file of plain arrays"),
    ],
)
def test_a_bad_npz_is_one_clear_sentence(changes: dict[str, object], message: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "bad.npz", **arrays(**changes), allow_pickle=True)
    with pytest.raises(SettingError, match=message):
        Npz(str(tmp_path / "bad.npz")).load()


def test_labels_beyond_the_given_classes(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", **arrays())
    with pytest.raises(SettingError, match=r"labels from 0 to 2; with 2 classes they must lie in 0..1"):
        Npz(str(tmp_path / "a.npz"), num_classes=2).load()


@pytest.mark.parametrize("content", [b"", b"not a zip", b"PK\x03\x04" + b"\0" * 40])
def test_a_file_that_is_no_npz(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "broken.npz").write_bytes(content)
    with pytest.raises(SettingError, match="can't be read"):
        Npz(str(tmp_path / "broken.npz")).load()


def test_a_path_that_is_missing() -> None:
    with pytest.raises(SettingError, match="dataset.path is not set"):
        Npz(None)
    with pytest.raises(SettingError, match="dataset.path=nowhere.npz is no file"):
        Npz("nowhere.npz").load()


def test_synthetic_images_are_the_same_every_time_and_differ_between_splits() -> None:
    first, second = (Synthetic(20, 10, 4, 8, 3, 0.5).load() for _ in range(2))
    assert torch.equal(first.train.images, second.train.images)
    assert not torch.equal(first.train.images[:10], first.test.images)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ((0, 1, 2, 8, 3, 0.5), "dataset.train_size=0"),
        ((1, 1, 1, 8, 3, 0.5), "dataset.num_classes=1"),
        ((1, 1, 2, 8, 3, 1.5), "dataset.noise=1.5"),
    ],
)
def test_impossible_synthetic_images(settings: tuple[int, int, int, int, int, float], message: str) -> None:
    with pytest.raises(SettingError, match=message):
        Synthetic(*settings)


def two_values() -> Images:
    images = torch.tensor([0, 255] * 8, dtype=torch.uint8).view(4, 1, 2, 2)
    split = Split(images, torch.tensor([0, 1, 0, 1]))
    return checked(split, split, None, "test data")


def test_mean_and_deviation_of_the_training_images() -> None:
    spec = two_values().spec(None, None)
    assert spec.mean == pytest.approx((0.5,)) and spec.std == pytest.approx((0.5,))
    normal = spec.normalize(two_values().train.images)
    assert normal.unique().tolist() == pytest.approx([-1.0, 1.0])


def test_images_of_another_size_are_normalized_alike() -> None:
    spec = DataSpec(4, 2, 2, (3, 8, 8), (0.1, 0.2, 0.3), (0.5, 0.25, 0.125))
    images = torch.randint(0, 256, (2, 3, 5, 7), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (spec.mean, spec.std))
    torch.testing.assert_close(spec.normalize(images), (images / 255 - mean) / std)


def test_given_mean_and_deviation_are_checked() -> None:
    with pytest.raises(SettingError, match=r"dataset.mean=\[0.1, 0.2\] has 2 values; the images have 1 channels"):
        two_values().spec([0.1, 0.2], None)
    with pytest.raises(SettingError, match=r"dataset.std=\[0.0\] must be above 0"):
        two_values().spec(None, [0.0])


def test_a_spec_survives_a_journey() -> None:
    import json

    spec = two_values().spec(None, None)
    assert DataSpec.from_json(json.loads(json.dumps(spec.to_json()))) == spec
