"""Published datasets, read from files in their real formats, whose sums torchvision checks."""

import gzip
import hashlib
import itertools
import pickle
import socket
import struct
import tarfile
import urllib.error
import urllib.request

import numpy as np
import pytest
import torch

from trainer.data import published
from trainer.data.published import CIFAR10, CIFAR100, SVHN, STL10, FashionMNIST
from trainer.errors import SettingError

URLOPEN = urllib.request.urlopen
RANDOM = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    def refuse(*args, **kwargs):
        raise urllib.error.URLError("no network")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)


def md5(path):
    return hashlib.md5(path.read_bytes()).hexdigest()


def pixels(*shape):
    return RANDOM.integers(0, 256, shape, dtype=np.uint8)


def archive(root, folder, name):
    with tarfile.open(root / name, "w:gz") as tar:
        tar.add(root / folder, folder)
    for file in (root / folder).iterdir():
        file.unlink()
    (root / folder).rmdir()
    return md5(root / name)


def cifar_files(root, monkeypatch, dataset, folder, batches, label_key, meta, meta_key, classes):
    (root / folder).mkdir()
    made = {}
    for name in batches:
        made[name] = pixels(3, 3072), [1, classes - 1, 0]
        (root / folder / name).write_bytes(pickle.dumps({"data": made[name][0], label_key: made[name][1]}))
    (root / folder / meta).write_bytes(pickle.dumps({meta_key: [str(i) for i in range(classes)]}))
    sums = [[name, md5(root / folder / name)] for name in batches]
    monkeypatch.setattr(dataset, "train_list", sums[:-1])
    monkeypatch.setattr(dataset, "test_list", sums[-1:])
    monkeypatch.setattr(dataset, "meta", {"filename": meta, "key": meta_key, "md5": md5(root / folder / meta)})
    monkeypatch.setattr(dataset, "tgz_md5", archive(root, folder, dataset.filename))
    return made


def test_cifar10(tmp_path, monkeypatch):
    from torchvision.datasets import CIFAR10 as Theirs

    names = [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]
    made = cifar_files(
        tmp_path, monkeypatch, Theirs, "cifar-10-batches-py", names, "labels", "batches.meta", "label_names", 10
    )
    images = CIFAR10(str(tmp_path)).load()
    assert images.train.images.shape == (15, 3, 32, 32) and images.test.images.shape == (3, 3, 32, 32)
    assert images.train.images.dtype == torch.uint8 and images.train.images.is_contiguous()
    # The format: 1,024 red, 1,024 green, 1,024 blue, each row by row.
    assert images.train.images[4, 2, 5, 7] == made["data_batch_2"][0][1, 2 * 1024 + 5 * 32 + 7]
    assert images.test.labels.tolist() == [1, 9, 0] and images.num_classes == 10


def test_cifar100(tmp_path, monkeypatch):
    from torchvision.datasets import CIFAR100 as Theirs

    cifar_files(
        tmp_path, monkeypatch, Theirs, "cifar-100-python", ["train", "test"], "fine_labels", "meta",
        "fine_label_names", 100,
    )  # fmt: skip
    images = CIFAR100(str(tmp_path)).load()
    assert images.train.labels.tolist() == [1, 99, 0] and images.num_classes == 100


def test_svhn(tmp_path, monkeypatch):
    from scipy.io import savemat
    from torchvision.datasets import SVHN as Theirs

    made, listed = {}, dict(Theirs.split_list)
    for split in ("train", "test"):
        made[split] = pixels(32, 32, 3, 4)
        file = tmp_path / f"{split}_32x32.mat"
        savemat(file, {"X": made[split], "y": np.array([[1], [10], [9], [2]], dtype=np.uint8)})
        listed[split] = [listed[split][0], file.name, md5(file)]
    monkeypatch.setattr(Theirs, "split_list", listed)
    images = SVHN(str(tmp_path)).load()
    assert images.train.images.shape == (4, 3, 32, 32)
    assert images.test.images[3, 1, 10, 20] == made["test"][10, 20, 1, 3]
    assert images.train.labels.tolist() == [1, 0, 9, 2]  # in the file a zero is called 10


def test_stl10(tmp_path, monkeypatch):
    from torchvision.datasets import STL10 as Theirs

    folder = tmp_path / "stl10_binary"
    folder.mkdir()
    made = {}
    for split in ("train", "test"):
        made[split] = pixels(3, 3, 96, 96)
        (folder / f"{split}_X.bin").write_bytes(made[split].tobytes())
        (folder / f"{split}_y.bin").write_bytes(bytes([1, 10, 3]))
    (folder / "unlabeled_X.bin").write_bytes(made["train"].tobytes())
    train = [[name, md5(folder / name)] for name in ("train_X.bin", "train_y.bin", "unlabeled_X.bin")]
    test = [[name, md5(folder / name)] for name in ("test_X.bin", "test_y.bin")]
    monkeypatch.setattr(Theirs, "train_list", train)
    monkeypatch.setattr(Theirs, "test_list", test)
    monkeypatch.setattr(Theirs, "tgz_md5", archive(tmp_path, "stl10_binary", Theirs.filename))
    images = STL10(str(tmp_path)).load()
    assert images.train.images.shape == (3, 3, 96, 96) and images.num_classes == 10
    assert images.test.images[2, 0, 30, 40] == made["test"][2, 0, 40, 30]  # the format is column by column
    assert images.train.labels.tolist() == [0, 9, 2]


def test_fashion_mnist(tmp_path, monkeypatch):
    from torchvision.datasets import FashionMNIST as Theirs

    raw = tmp_path / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    made, resources = {}, []
    for split, count in (("train", 4), ("t10k", 2)):
        made[split] = pixels(count, 28, 28)
        contents = {
            f"{split}-images-idx3-ubyte.gz": struct.pack(">IIII", 0x803, count, 28, 28) + made[split].tobytes(),
            f"{split}-labels-idx1-ubyte.gz": struct.pack(">II", 0x801, count) + bytes([9, 0, 3, 1][:count]),
        }
        for name, content in contents.items():
            (raw / name).write_bytes(gzip.compress(content))
            resources.append((name, md5(raw / name)))
    monkeypatch.setattr(Theirs, "resources", resources)
    images = FashionMNIST(str(tmp_path)).load()
    assert images.train.images.shape == (4, 1, 28, 28) and images.test.labels.tolist() == [9, 0]
    assert images.train.images[1, 0, 5, 6] == made["train"][1, 5, 6]
    colored = FashionMNIST(str(tmp_path), channels=3).load()
    assert torch.equal(colored.test.images[:, 2], images.test.images[:, 0])


def test_damaged_files_of_fashion_mnist(tmp_path):
    raw = tmp_path / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    for split, kind in itertools.product(("train", "t10k"), ("images-idx3", "labels-idx1")):
        (raw / f"{split}-{kind}-ubyte").write_text("hi")
    with pytest.raises(SettingError, match="dataset=fashion_mnist can't be read .* has to be removed first"):
        FashionMNIST(str(tmp_path)).load()


@pytest.mark.parametrize("kind", [CIFAR10, CIFAR100, SVHN, STL10, FashionMNIST])
@pytest.mark.parametrize("download", [True, False])
def test_files_that_cant_be_had_are_asked_for_in_one_sentence(kind, download, tmp_path):
    with pytest.raises(SettingError) as caught:
        kind(str(tmp_path), download).load()
    message = str(caught.value)
    assert message.startswith(f"dataset={kind.name} can't be read from dataset.root={tmp_path}")
    assert kind.files in message and "dataset=digits" in message and "\n" not in message
    assert ("dataset.download=false" in message) is not download


def test_a_network_that_swallows_packets_is_not_waited_for_without_end(tmp_path, monkeypatch):
    from torchvision.datasets import CIFAR10 as Theirs

    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setattr(urllib.request, "urlopen", URLOPEN)
        monkeypatch.setattr(Theirs, "url", f"http://127.0.0.1:{silent.getsockname()[1]}/cifar-10-python.tar.gz")
        monkeypatch.setattr(published, "SILENCE_SECONDS", 0.2)
        with pytest.raises(SettingError, match="can't be read from .*timed out.*dataset=digits"):
            CIFAR10(str(tmp_path)).load()
    assert socket.getdefaulttimeout() is None


def test_a_damaged_file_is_not_used(tmp_path):
    (tmp_path / "cifar-10-python.tar.gz").write_bytes(b"damaged")
    with pytest.raises(SettingError, match="can't be read"):
        CIFAR10(str(tmp_path), download=False).load()


def test_channels_are_checked():
    with pytest.raises(SettingError, match="dataset.channels=2 must be 1 or 3"):
        FashionMNIST(channels=2)
