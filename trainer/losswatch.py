"""Noticing that a loss is no number any more, without stopping a GPU."""

import logging
import math
from collections import deque
from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from trainer.errors import NonFiniteLossError
from trainer.hostcopy import HostCopy

LOSS_LAG = 16
"""On CUDA a loss is looked at this many steps after its computation at the latest."""

SKIPS_SAID = 10
"""So many skipped steps of a block are said one by one."""

log = logging.getLogger(__name__)


def all_finite(tensors: Iterable[Tensor]) -> bool:
    """Whether all values of ``tensors`` are finite; waits for them."""
    return all(bool(tensor.isfinite().all()) for tensor in tensors)


class LossWatch:
    """Looks at every loss as soon as it has arrived from the device.

    Attributes:
        skipping: whether the update of a bad step has been left out, so that saying so is enough.
    """

    def __init__(self, whose: str, learning_rate: Callable[[], float]) -> None:
        """``whose`` loss it is and the ``learning_rate`` are for the error."""
        self.skipping = False
        self._whose, self._learning_rate = whose, learning_rate
        self._losses: deque[tuple[int, float, HostCopy]] = deque()
        self._skipped = 0

    def add(self, loss: Tensor, step: int, good: Tensor | None = None) -> None:
        """Watch the scalar ``loss`` of step number ``step``, which nobody writes to any more; ``good`` is False where
        its gradient was not finite."""
        watched = loss if good is None else torch.where(good, loss, math.nan)
        self._losses.append((step, self._learning_rate(), HostCopy(watched, final=True)))
        self.check(LOSS_LAG)

    def check(self, lag: int = 0) -> None:
        """Look at the losses that have arrived, and at all but the last ``lag`` of them in any case. Raises
        ``NonFiniteLossError``, unless bad steps are skipped."""
        while self._losses and (self._losses[0][-1].ready() or len(self._losses) > lag):
            step, rate, copy = self._losses.popleft()
            loss = copy.wait().item()
            if math.isfinite(loss):
                continue
            if not self.skipping:
                raise NonFiniteLossError(
                    f"the loss of {self._whose} became {loss} at step {step}, at learning rate {rate:.4g}; "
                    f"a smaller optimizer.lr or a longer scheduler.warmup_epochs may help"
                )
            self._say_skipped(step)

    def check_weights(self, weights: Iterable[Tensor]) -> None:
        """Look at the weights after the last update, and wait for them. Raises ``NonFiniteLossError``, unless bad steps
        are skipped."""
        if not self.skipping and not all_finite(weights):
            raise NonFiniteLossError(
                f"the weights of {self._whose} are no numbers after the last step, at learning rate "
                f"{self._learning_rate():.4g}; a smaller optimizer.lr or a longer scheduler.warmup_epochs may help"
            )

    def unseen(self) -> list[HostCopy]:
        """The losses that have not been looked at, any of which says that its step is not worth keeping if it is not
        finite; none where bad steps are skipped. Any thread may wait for them."""
        return [] if self.skipping else [copy for *_, copy in self._losses]

    def _say_skipped(self, step: int) -> None:
        """Say each skipped step at first, and then only now and then how many there were."""
        self._skipped += 1
        if self._skipped <= SKIPS_SAID or self._skipped % SKIPS_SAID == 0:
            log.warning(
                "%s left out its update of step %d, whose loss or gradient was not finite; %d left out so far",
                self._whose, step, self._skipped,
            )  # fmt: skip
