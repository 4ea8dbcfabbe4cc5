"""Similarity matching (Nøkland and Eidnes, arXiv 1901.06656): samples of a class are alike, others are not."""

import torch.nn.functional as F
from torch import Tensor


def similarity(x: Tensor) -> Tensor:
    """The cosine similarity of each two samples, ``(N, D)`` to ``(N, N)``, after each sample's mean is taken away."""
    centred = x.float() - x.float().mean(1, keepdim=True)
    unit = F.normalize(centred, dim=1, eps=1e-8)
    return unit @ unit.T


def similarity_loss(x: Tensor, target: Tensor) -> Tensor:
    """The mean squared difference between the similarities of ``x`` ``(N, D)`` and of ``target`` ``(N, classes)``."""
    return F.mse_loss(similarity(x), similarity(target))
