"""Write CIFAR-10 as ``dataset=npz`` and ``scripts/accuracy.py`` read it; torchvision downloads it once:

    python scripts/cifar10_npz.py cifar10.npz
    python scripts/cifar10_npz.py cifar10_small.npz --train 5000 --test 2000

Images and labels are in the official order, so a smaller file has the first ones.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from torchvision.datasets import CIFAR10


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the file; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, help="the .npz file")
    parser.add_argument("--root", default="data", help="where the downloaded files are, or go")
    parser.add_argument("--train", type=int, default=50_000, metavar="N", help="so many training images")
    parser.add_argument("--test", type=int, default=10_000, metavar="N", help="so many test images")
    options = parser.parse_args(arguments)
    arrays = {}
    for name, count in (("train", options.train), ("test", options.test)):
        split = CIFAR10(options.root, train=name == "train", download=True)
        if not 0 < count <= len(split):
            parser.error(f"--{name} must lie between 1 and {len(split)}")
        arrays[f"x_{name}"] = split.data[:count]
        arrays[f"y_{name}"] = np.array(split.targets[:count], np.uint8)
    np.savez(options.file, **arrays)
    return 0


if __name__ == "__main__":
    sys.exit(main())
