"""Published datasets, read and downloaded by torchvision, which checks the sums of archives."""

import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from trainer.data.images import Images, Split, checked
from trainer.errors import SettingError


SILENCE_SECONDS = 30.0
"""How long a server may say nothing. A network that swallows packets would else be waited for without end."""


@contextlib.contextmanager
def _impatient() -> Iterator[None]:
    """Inside, no connection waits longer than ``SILENCE_SECONDS``."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(SILENCE_SECONDS)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


class Published:
    """A dataset of torchvision that fits in memory. A subclass says which, and how its images are to be read."""

    name: str
    files: str
    """What lies where, for whoever has to fetch it by hand."""
    num_classes = 10

    def __init__(self, root: str = "data", download: bool = True) -> None:
        """``root`` is the folder where the files lie or are put; ``download`` whether they may be fetched."""
        self._root, self._download = Path(root).expanduser(), download

    def load(self) -> Images:
        """Read the files, and fetch them first where need be. Raises ``SettingError`` where they can't be had."""
        try:
            with _impatient():
                train, test = self._split(True), self._split(False)
        except (OSError, RuntimeError, EOFError, ValueError, AssertionError) as error:
            reason = f" ({str(error).splitlines()[0].rstrip(':')})" if str(error) else ""
            allowed = "" if self._download else " and dataset.download=false"
            raise SettingError(
                f"dataset={self.name} can't be read from dataset.root={self._root}{allowed}{reason}; put {self.files} "
                f"(what is damaged there has to be removed first), or use dataset=digits, which needs no download"
            ) from error
        return checked(train, test, self.num_classes, f"dataset={self.name}")

    def _split(self, train: bool) -> Split:
        dataset = self._open(str(self._root), train, self._download)
        images, labels = self._read(dataset)
        return Split(images, labels.long())

    def _open(self, root: str, train: bool, download: bool) -> Any:
        """torchvision's dataset of a split."""
        raise NotImplementedError

    def _read(self, dataset: Any) -> tuple[Tensor, Tensor]:
        """Images, uint8 ``(N, C, H, W)``, and labels ``(N,)``."""
        return torch.as_tensor(dataset.data), torch.as_tensor(dataset.labels)


class CIFAR10(Published):
    """50,000 and 10,000 images of 32x32 in 10 classes (Krizhevsky 2009)."""

    name = "cifar10"
    files = "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz there as it is"

    def _open(self, root: str, train: bool, download: bool) -> Any:
        from torchvision.datasets import CIFAR10

        return CIFAR10(root, train, download=download)

    def _read(self, dataset: Any) -> tuple[Tensor, Tensor]:
        return torch.as_tensor(dataset.data).permute(0, 3, 1, 2), torch.as_tensor(dataset.targets)


class CIFAR100(CIFAR10):
    """The same in 100 classes."""

    name = "cifar100"
    files = "https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz there as it is"
    num_classes = 100

    def _open(self, root: str, train: bool, download: bool) -> Any:
        from torchvision.datasets import CIFAR100

        return CIFAR100(root, train, download=download)


class SVHN(Published):
    """Street view house numbers: 73,257 and 26,032 images of 32x32 in 10 classes (Netzer et al. 2011)."""

    name = "svhn"
    files = "train_32x32.mat and test_32x32.mat of http://ufldl.stanford.edu/housenumbers/ there"

    def _open(self, root: str, train: bool, download: bool) -> Any:
        from torchvision.datasets import SVHN

        return SVHN(root, "train" if train else "test", download=download)


class STL10(Published):
    """The labeled images of STL-10: 5,000 and 8,000 of 96x96 in 10 classes (Coates et al. 2011)."""

    name = "stl10"
    files = "http://ai.stanford.edu/~acoates/stl10/stl10_binary.tar.gz there as it is"

    def _open(self, root: str, train: bool, download: bool) -> Any:
        from torchvision.datasets import STL10

        return STL10(root, "train" if train else "test", download=download)


class FashionMNIST(Published):
    """Zalando's articles: 60,000 and 10,000 gray images of 28x28 in 10 classes (Xiao et al., arXiv 1708.07747)."""

    name = "fashion_mnist"
    files = (
        "train-images-idx3-ubyte.gz, train-labels-idx1-ubyte.gz, t10k-images-idx3-ubyte.gz and "
        "t10k-labels-idx1-ubyte.gz of http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/ there, into "
        "FashionMNIST/raw"
    )

    def __init__(self, root: str = "data", download: bool = True, channels: int = 1) -> None:
        """With ``channels`` 3 the gray images come as color ones, for models that want those."""
        super().__init__(root, download)
        if channels not in (1, 3):
            raise SettingError(f"dataset.channels={channels} must be 1 or 3")
        self._channels = channels

    def _open(self, root: str, train: bool, download: bool) -> Any:
        from torchvision.datasets import FashionMNIST

        return FashionMNIST(root, train, download=download)

    def _read(self, dataset: Any) -> tuple[Tensor, Tensor]:
        return dataset.data[:, None].expand(-1, self._channels, -1, -1), dataset.targets
