"""The precisions that a run can have."""

from contextlib import AbstractContextManager, nullcontext

import torch

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
"""The dtype of a block's arithmetic and of the activations that it hands on, by the setting ``precision``."""


def autocast(device: torch.device, precision: torch.dtype) -> AbstractContextManager[object]:
    """A context for arithmetic in ``precision``, which can be entered again and again."""
    return nullcontext() if precision is torch.float32 else torch.autocast(device.type, precision)
