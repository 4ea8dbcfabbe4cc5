"""Which of several kernels torch takes for an operation: the settings ``deterministic``, ``cudnn_benchmark`` and
``compile``."""

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch

from trainer.errors import SettingError

REFUSAL = " does not have a deterministic implementation"
"""What torch says of an operation, after its name."""


COMPILED_UNITS = 4096
"""So many kernels torch.compile may make of one class's code. By default it stops at 8 and says so once in a log."""


@contextmanager
def kernels(deterministic: bool, cudnn_benchmark: bool, compile: bool) -> Iterator[None]:
    """Inside, torch uses only operations that repeat bit for bit where ``deterministic`` says so, cuDNN times its
    convolutions to take the fastest where ``cudnn_benchmark`` does, and torch.compile makes a kernel for every unit
    where ``compile`` does. Raises ``SettingError`` for an operation that has no way to repeat, and where a GPU's memory
    is too small."""
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when CUDA starts
    if deterministic != torch.are_deterministic_algorithms_enabled():  # the call imports a compiler
        torch.use_deterministic_algorithms(deterministic)
    torch.backends.cudnn.benchmark = cudnn_benchmark
    try:
        with _for_every_unit() if compile else nullcontext():
            yield
    except torch.OutOfMemoryError as error:
        raise SettingError(
            f"the GPU's memory is too small ({str(error).splitlines()[0]}); a smaller batch_size, a larger "
            f"update.accumulate, precision=bf16 or more ranks take less, and dry_run=true shows what each rank takes"
        ) from error
    except RuntimeError as error:
        name, refused, _ = str(error).partition(REFUSAL)
        if not refused:
            raise
        raise SettingError(
            f"deterministic=true, but torch can't make {name} repeat bit for bit; take another model or local loss, or "
            f"set deterministic=false"
        ) from error


def _for_every_unit() -> AbstractContextManager[None]:
    from torch._dynamo import config

    limits: AbstractContextManager[None] = config.patch(
        recompile_limit=COMPILED_UNITS, accumulated_recompile_limit=COMPILED_UNITS, fail_on_recompile_limit_hit=True
    )
    return limits
