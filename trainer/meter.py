"""A block's running loss and accuracy, summed on its device."""

from collections.abc import Sequence

import torch
from torch import Tensor

from trainer.errors import SettingError
from trainer.hostcopy import HostCopy
from trainer.local_losses.base import LossOutput, correct

LOSS, RIGHT, SEEN = "loss", "right", "seen"
"""What is summed: the losses, the samples that were classified right, and how many samples there were."""


class Totals:
    """Sums on their way to the host; ``sums`` waits for them."""

    def __init__(self, names: Sequence[str], sums: Tensor) -> None:
        self._names, self._copy = names, HostCopy(sums)

    def sums(self) -> dict[str, float]:
        """The sums of ``loss``, ``right``, ``seen`` and, for every term of the loss, ``loss_<term>``."""
        return dict(zip(self._names, self._copy.wait().tolist(), strict=True))


class Meter:
    """Sums the loss, its terms and the right answers of the samples it is shown, over a pass and over windows of it,
    without a synchronization."""

    def __init__(self, device: torch.device, terms: Sequence[str] = ()) -> None:
        """``terms`` are the names of the loss's terms."""
        self.terms = tuple(terms)
        self._names = (LOSS, RIGHT, SEEN, *(f"{LOSS}_{term}" for term in terms))
        self.sums = torch.zeros(2, len(self._names), dtype=torch.float64, device=device)
        """Row 0: sums since the last ``take_window``; row 1: those of the pass before that. A checkpoint keeps both."""
        self._window, self._pass = self.sums
        self._loss, self._right, self._seen, *self._parts = self._window

    def add(self, result: LossOutput, label: Tensor, good: Tensor | None = None) -> None:
        """Count a batch: its mean loss and terms, its logits ``(N, classes)`` and labels ``(N,)`` or ``(N, classes)``.
        A batch for which ``good``, a boolean scalar, is False does not count. Raises ``SettingError`` where the terms
        have other names."""
        if result.terms.keys() != set(self.terms):
            raise SettingError(
                f"the local loss gives the terms {', '.join(result.terms) or 'none'}, but its classifier's attribute "
                f"terms names {', '.join(self.terms) or 'none'}; they must be the same"
            )
        count = len(result.logits)
        right = correct(result.logits, label[:count])
        means = [result.loss, *(result.terms[term] for term in self.terms)]
        if good is None:
            self._seen += count
        else:
            right, *means = (torch.where(good, value, 0.0) for value in (right, *means))
            self._seen.add_(good, alpha=count)
        self._right += right
        for total, mean in zip((self._loss, *self._parts), means, strict=True):
            total.add_(mean, alpha=count)

    def take_window(self) -> Totals:
        """What was summed since the last call."""
        totals = Totals(self._names, self._window)
        self._pass += self._window
        self._window.zero_()
        return totals

    def take_pass(self) -> Totals:
        """What was summed since the last call of this method: a whole pass over the data."""
        self.take_window()
        totals = Totals(self._names, self._pass)
        self._pass.zero_()
        return totals
