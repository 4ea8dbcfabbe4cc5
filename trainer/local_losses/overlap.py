"""Overlapping local updates (Laskin et al., arXiv 2012.03837; BackLink, arXiv 2205.07141): a block also trains through
the first unit of the next one."""

from trainer.local_losses.base import LaterUnit, LocalClassifier, LocalLoss
from trainer.local_losses.following import Follower, Following


class Overlap(Following):
    """Another local loss after a copy of the next block's first unit, exact but for its lag."""

    def __init__(self, base: LocalLoss, every: int = 1, lag: int = 4) -> None:
        """See ``Following``."""
        super().__init__(base, every, lag)

    def follower(self, unit: LaterUnit, base: LocalClassifier) -> Follower:
        """A follower that keeps nothing of its own."""
        return Follower(unit, base, keep=0.0)
