"""Ranks that share one GPU, with packets by NCCL: for trying out its edges where there is no second GPU.

    torchrun --nproc_per_node=2 scripts/nccl_on_one_gpu.py partition.blocks=2 tracker=none

NCCL refuses two ranks on one GPU of one machine. Here each rank says that it is on a machine of its own, so NCCL
connects them by sockets: slower than the trainer's own way through host memory, but what several GPUs do otherwise.
"""

import os
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from trainer import main, rank  # noqa: E402

named = rank.device_name


def device_name(device: torch.device) -> str:
    """In place of the trainer's: no rank shares its GPU."""
    return f"{named(device)} of rank {os.environ['RANK']}" if device.type == "cuda" else named(device)


if __name__ == "__main__":
    if "RANK" not in os.environ:
        sys.exit("error: start it with torchrun --nproc_per_node=2 scripts/nccl_on_one_gpu.py")
    os.environ["NCCL_HOSTID"] = f"rank {os.environ['RANK']}"  # by which NCCL knows a machine
    os.environ.setdefault("NCCL_IB_DISABLE", "1")
    rank.device_name = device_name
    rank.Rank.shares_cores = property(lambda self: True)  # type: ignore[method-assign,assignment]
    main.main()
