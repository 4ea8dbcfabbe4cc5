"""A number of which each rank has a part."""

import torch.distributed as dist
from torch import Tensor


def total(part: Tensor, group: dist.ProcessGroup) -> Tensor:
    """The sum of every rank's ``part``, a scalar; all ranks of ``group`` call this."""
    whole = part.clone()
    dist.all_reduce(whole, group=group)
    return whole
