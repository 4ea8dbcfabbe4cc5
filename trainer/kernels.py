"""Which of several kernels torch takes for an operation: the settings ``deterministic`` and ``cudnn_benchmark``."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from trainer.errors import SettingError

REFUSAL = " does not have a deterministic implementation"
"""What torch says of an operation, behind its name."""


@contextmanager
def kernels(deterministic: bool, cudnn_benchmark: bool) -> Iterator[None]:
    """Inside, torch uses only operations that repeat bit for bit where ``deterministic`` says so, and cuDNN times its
    convolutions to take the fastest where ``cudnn_benchmark`` does. Raises ``SettingError`` for an operation that has
    no way to repeat."""
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when CUDA starts
    if deterministic != torch.are_deterministic_algorithms_enabled():  # the call imports a compiler
        torch.use_deterministic_algorithms(deterministic)
    torch.backends.cudnn.benchmark = cudnn_benchmark
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
