"""Similarity matching (Nøkland and Eidnes, arXiv 1901.06656): samples of a class are alike, others are not."""

from contextlib import nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor


def gram(rows: Tensor) -> Tensor:
    """The products of each two rows, ``(N, D)`` to ``(N, N)``, in the precision of ``rows`` also under autocast."""
    kind = rows.device.type
    with torch.autocast(kind, enabled=False) if torch.amp.is_autocast_available(kind) else nullcontext():
        return rows @ rows.T


def similarity(x: Tensor) -> Tensor:
    """The cosine similarity of each two samples, ``(N, D)`` to ``(N, N)``, after each sample's mean is taken away."""
    centered = x.float() - x.float().mean(1, keepdim=True)
    unit = F.normalize(centered, dim=1, eps=1e-8)
    return gram(unit)


def similarity_loss(x: Tensor, target: Tensor) -> Tensor:
    """The mean squared difference between the similarities of ``x`` ``(N, D)`` and of ``target`` ``(N, classes)``."""
    return F.mse_loss(similarity(x), similarity(target))
