"""Supervised contrastive learning (Khosla et al., arXiv 2004.11362)."""

import torch
import torch.nn.functional as F
from torch import Tensor

from trainer.local_losses.similarity import gram

TEMPERATURE = 0.07


def supervised_contrast(embedding: Tensor, target: Tensor, temperature: float = TEMPERATURE) -> Tensor:
    """The loss "out" of the paper, with one view an image: each sample is drawn to those of its class and away from all
    others, the mean over the samples that are not alone in their class (0 where all are).

    Args:
        embedding: ``(N, D)``, normalized here to length 1.
        target: class probabilities ``(N, classes)``; the class of a sample is the likeliest.
        temperature: divides the cosine similarities.
    """
    unit = F.normalize(embedding.float(), dim=1)
    similarity = gram(unit) / temperature
    own = torch.eye(len(unit), dtype=torch.bool, device=unit.device)
    log_share = similarity - similarity.masked_fill(own, -torch.inf).logsumexp(1, keepdim=True)
    label = target.argmax(1)
    positive = ((label[:, None] == label[None, :]) & ~own).float()
    # A batch of one has no other sample, so its log-share is infinite; it must not meet a factor of 0.
    drawn = torch.where(positive > 0, log_share, 0.0).sum(1) / positive.sum(1).clamp(min=1)
    return -drawn.sum() / (positive.sum(1) > 0).sum().clamp(min=1)
