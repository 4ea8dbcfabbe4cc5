"""Write CIFAR-10 as ``dataset=npz`` and ``scripts/accuracy.py`` read it, from what ``dataset=cifar10`` reads:

    python scripts/cifar10_npz.py cifar10.npz
    python scripts/cifar10_npz.py cifar10_small.npz --train 5000 --test 2000

Images and labels are in the official order, so a smaller file has the first ones.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402

from trainer.data.published import CIFAR10  # noqa: E402
from trainer.errors import SettingError  # noqa: E402


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the file; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, help="the .npz file")
    parser.add_argument("--root", default="data", help="where the downloaded files are, or go")
    parser.add_argument("--train", type=int, default=50_000, metavar="N", help="so many training images")
    parser.add_argument("--test", type=int, default=10_000, metavar="N", help="so many test images")
    options = parser.parse_args(arguments)
    try:
        images = CIFAR10(options.root).load()
    except SettingError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_status
    arrays: dict[str, Any] = {}
    for name, split, count in (("train", images.train, options.train), ("test", images.test, options.test)):
        if not 0 < count <= len(split):
            parser.error(f"--{name} must lie between 1 and {len(split)}")
        arrays[f"x_{name}"] = split.images[:count].permute(0, 2, 3, 1).numpy()
        arrays[f"y_{name}"] = split.labels[:count].numpy().astype(np.uint8)
    np.savez(options.file, **arrays)
    return 0


if __name__ == "__main__":
    sys.exit(main())
