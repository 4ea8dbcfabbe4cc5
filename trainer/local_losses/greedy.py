"""Greedy supervised learning: the smallest possible local classifier (Belilovsky et al., arXiv 1812.11446)."""

from trainer.local_losses.base import HeadClassifier, LocalClassifier, LocalLoss, Site
from trainer.models.heads import linear_head


class Greedy(LocalLoss):
    """Average pool and linear layer, trained by cross-entropy."""

    def classifier(self, site: Site) -> LocalClassifier:
        """A head for maps, tokens or vectors."""
        return HeadClassifier(linear_head(site.features, site.num_classes))
