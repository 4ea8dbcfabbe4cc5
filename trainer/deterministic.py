"""The setting ``deterministic``."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from trainer.errors import SettingError

REFUSAL = " does not have a deterministic implementation"
"""What torch says of an operation, behind its name."""


@contextmanager
def deterministic(wanted: bool) -> Iterator[None]:
    """Inside, torch uses only operations that repeat bit for bit, or whichever is fastest. Raises ``SettingError`` for
    an operation that has no way to repeat."""
    if wanted:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when CUDA starts
    if wanted != torch.are_deterministic_algorithms_enabled():  # the call imports a compiler
        torch.use_deterministic_algorithms(wanted)
    try:
        yield
    except RuntimeError as error:
        name, refused, _ = str(error).partition(REFUSAL)
        if not refused:
            raise
        raise SettingError(
            f"deterministic=true, but torch can't make {name} repeat bit for bit; take another model or local loss, or "
            f"set deterministic=false"
        ) from error
