"""A block's running loss and accuracy, summed on its device."""

import torch
from torch import Tensor

from trainer.hostcopy import HostCopy
from trainer.local_losses.base import Judged, correct


class Totals:
    """Sums on their way to the host; ``sums`` waits for them."""

    def __init__(self, sums: Tensor) -> None:
        self._copy = HostCopy(sums)

    def sums(self) -> list[float]:
        """The sum of the losses, how many samples were classified right, and how many there were."""
        sums: list[float] = self._copy.wait().tolist()
        return sums


class Meter:
    """Sums the loss and the right answers of the samples it is shown, over a pass and over windows of it, without a
    synchronisation."""

    def __init__(self, device: torch.device) -> None:
        self.sums = torch.zeros(2, 3, dtype=torch.float64, device=device)
        """Loss, right answers and samples, of the window and of the pass before it; what a checkpoint keeps."""
        self._window, self._pass = self.sums
        self._loss, self._right, self._seen = self._window

    def add(self, judged: Judged, label: Tensor, good: Tensor | None = None) -> None:
        """Count a batch: its mean loss, its logits ``(N, classes)`` and labels ``(N,)`` or ``(N, classes)``. A batch
        for which ``good``, a boolean scalar, is False does not count."""
        count = len(judged.logits)
        loss, right = judged.loss.detach(), correct(judged.logits, label[:count])
        if good is None:
            self._seen += count
        else:
            loss, right = torch.where(good, loss, 0.0), torch.where(good, right, 0.0)
            self._seen.add_(good, alpha=count)
        self._loss.add_(loss, alpha=count)
        self._right += right

    def take_window(self) -> Totals:
        """What was summed since the last call."""
        totals = Totals(self._window)
        self._pass += self._window
        self._window.zero_()
        return totals

    def take_pass(self) -> Totals:
        """What was summed since the last call of this method: a whole pass over the data."""
        self.take_window()
        totals = Totals(self._pass)
        self._pass.zero_()
        return totals
