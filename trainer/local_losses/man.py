"""Momentum auxiliary network (Su et al., arXiv 2407.05623; MAN++, arXiv 2507.16279): the local classifier stands after
the next block's first unit, twice: as a moving average of the real one, and as a copy that learns."""

import torch
from torch import Tensor, nn

from trainer.errors import check_rate
from trainer.local_losses.base import LaterUnit, LocalClassifier, LocalLoss
from trainer.local_losses.copies import trainable_copy
from trainer.local_losses.following import Follower, Following


class MomentumFollower(Follower):
    """``s * learned(h) + (2 - s) * average(h)``, with s = 1 or, in MAN++, learned from 1."""

    def __init__(self, unit: LaterUnit, base: LocalClassifier, keep: float, learn_scale: bool) -> None:
        super().__init__(unit, base, keep)
        self.learned = trainable_copy(unit.module)
        self.scale = nn.Parameter(torch.ones(()), requires_grad=learn_scale)

    def copied_units(self) -> dict[str, str]:
        """Both copies of the unit."""
        copied = super().copied_units()
        return copied | {f"learned{name.removeprefix('next')}": origin for name, origin in copied.items()}

    def beyond(self, features: Tensor) -> Tensor:
        """Features ``(N, ...)`` to the sum of what the two copies make of them."""
        return self.scale * self.learned(features) + (2 - self.scale) * super().beyond(features)


class MAN(Following):
    """Another local loss after a moving average of the next block's first unit and a trainable copy of it."""

    def __init__(
        self, base: LocalLoss, every: int = 1, lag: int = 4, momentum: float = 0.995, learn_scale: bool = False
    ) -> None:
        """``momentum`` is the share of the average that outlasts one step, ``learn_scale`` MAN++'s learned balance of
        the two; see ``Following`` for the rest."""
        super().__init__(base, every, lag)
        check_rate("local_loss.momentum", momentum)
        self._keep, self._learn_scale = momentum**every, learn_scale

    def follower(self, unit: LaterUnit, base: LocalClassifier) -> Follower:
        """A follower with a trainable copy beside the average."""
        return MomentumFollower(unit, base, self._keep, self._learn_scale)
