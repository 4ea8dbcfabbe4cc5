"""Local classifiers that hold a copy of the next block's first unit and follow its training at a distance.

Such a block trains through what the next one makes of its output, and still no gradient crosses ranks: only weights
do, in the other direction, some steps late. Overlapping updates and momentum auxiliary networks both rest on this.
"""

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from trainer.errors import SettingError, at_least
from trainer.hostcopy import to_device
from trainer.local_losses.base import LossOutput, LaterUnit, LocalClassifier, LocalLoss, ModelOutput, Refresh, Site
from trainer.local_losses.copies import frozen_copy
from trainer.packet import Packet
from trainer.units import global_name
from trainer.usage import shown


class Follower(LocalClassifier):
    """A local classifier after a copy of the next block's first unit, ``next``."""

    def __init__(self, unit: LaterUnit, base: LocalClassifier, keep: float) -> None:
        """Starts from the unit's initial weights.

        Args:
            unit: the next block's first unit.
            base: the classifier of what the unit gives.
            keep: the share of the copy's own weights that outlasts a refresh: 0 for an exact copy.
        """
        super().__init__()
        self.unit_name = unit.name
        self.next = frozen_copy(unit.module)
        self.base = base
        self.terms = base.terms
        self.keep = keep

    def beyond(self, features: Tensor) -> Tensor:
        """Features ``(N, ...)`` to what the next block's first unit makes of them."""
        seen: Tensor = self.next(features)
        return seen

    def forward(self, features: Tensor) -> Tensor:
        """Features ``(N, ...)`` to logits ``(N, classes)``."""
        logits: Tensor = self.base(self.beyond(features))
        return logits

    def compute_loss(self, features: Tensor, packet: Packet) -> LossOutput:
        """What the classifier after the copy says."""
        return self.base.compute_loss(self.beyond(features), packet)

    def copied_units(self) -> dict[str, str]:
        """The copy of the unit."""
        return {f"next.{name}": global_name(self.unit_name, self.next, name) for name in self.next.state_dict()}

    @torch.no_grad()
    def follow(self, weights: Mapping[str, Tensor]) -> None:
        """Refresh the copy by the real unit's ``weights``, its state by name with the statistics of batch norms."""
        for name, own in self.next.state_dict().items():
            new = to_device(weights[name], own.device)
            if self.keep and own.is_floating_point():
                own.lerp_(new, 1 - self.keep)
            else:
                own.copy_(new)


class Following(LocalLoss):
    """A method whose classifiers follow the next block's first unit, with another local loss after it."""

    def __init__(self, base: LocalLoss, every: int, lag: int) -> None:
        """Any lag from 1 on is safe: block k waits in step t for block k + 1 to finish step t - lag, and has sent all
        that takes. A lag below the packets that send queue and receive slots hold (4 by default) only keeps
        neighbors closer together than these would.

        Args:
            base: the local loss after the copy.
            every: the copy is refreshed by the weights after each so many steps.
            lag: the least age, in steps, of the weights that are taken over.

        Raises:
            SettingError: a number is too small, ``base`` is no local loss, or it follows the next block as well.
        """
        if not hasattr(base, "classifier"):
            raise SettingError(
                f"local_loss.base={shown(base)} is no local loss; choose one of the files, as by "
                f"local_loss@local_loss.base=infopro"
            )
        at_least(1, {"local_loss.every": every, "local_loss.lag": lag})
        if base.refresh is not None:
            raise SettingError(
                f"local_loss.base={type(base).__name__} follows the next block itself; choose a base that does not, "
                f"such as dgl"
            )
        self._base = base
        self.fields = base.fields
        self.refresh = Refresh(every, lag)

    def classifier(self, site: Site) -> LocalClassifier:
        """A follower of the unit after the cut. Where that is the model's head, its logits are taken as they are.
        Raises ``SettingError`` for a unit that learns nothing, such as an activation."""
        unit, *later = site.later
        if not any(True for _ in unit.module.parameters()):
            raise SettingError(
                f"a block that ends with unit {site.name} can't follow unit {unit.name}, which has no parameters; cut "
                f"before another unit"
            )
        beyond = replace(site, features=unit.out_shape, later=tuple(later))
        return self.follower(unit, self._base.classifier(beyond) if later else ModelOutput())

    def follower(self, unit: LaterUnit, base: LocalClassifier) -> Follower:
        """The method's own kind of follower."""
        raise NotImplementedError
