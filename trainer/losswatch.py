"""Noticing that a loss is no number any more, without stopping a GPU."""

import math
from collections import deque
from collections.abc import Callable

from torch import Tensor

from trainer.errors import NonFiniteLossError
from trainer.hostcopy import HostCopy

LOSS_LAG = 16
"""On CUDA a loss is looked at this many steps after its computation at the latest."""


class LossWatch:
    """Looks at every loss as soon as it has arrived from the device."""

    def __init__(self, whose: str, learning_rate: Callable[[], float]) -> None:
        """``whose`` loss it is and the ``learning_rate`` are for the error."""
        self._whose, self._learning_rate = whose, learning_rate
        self._losses: deque[tuple[int, HostCopy]] = deque()

    def add(self, loss: Tensor, step: int) -> None:
        """Watch the scalar ``loss`` of step number ``step``."""
        self._losses.append((step, HostCopy(loss)))
        self.check(LOSS_LAG)

    def check(self, lag: int = 0) -> None:
        """Look at the losses that have arrived, and at all but the last ``lag`` of them in any case. Raises
        ``NonFiniteLossError``."""
        while self._losses and (self._losses[0][1].ready() or len(self._losses) > lag):
            step, copy = self._losses.popleft()
            loss = copy.wait().item()
            if not math.isfinite(loss):
                raise NonFiniteLossError(
                    f"the loss of {self._whose} became {loss} at step {step}, at learning rate "
                    f"{self._learning_rate():.4g}; a smaller optimizer.lr or a longer scheduler.warmup_epochs may help"
                )
