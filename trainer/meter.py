"""A block's running loss and accuracy, summed on its device."""

from collections.abc import Sequence

import torch
from torch import Tensor

from trainer.errors import SettingError
from trainer.hostcopy import HostCopy, to_device
from trainer.local_losses.base import LossOutput, correct

LOSS, RIGHT, SEEN = "loss", "right", "seen"
"""What is summed: the losses, the samples that were classified right, and how many samples there were."""

HELD_BATCHES = 64
"""So many batches are summed at once at the latest."""


class Totals:
    """Sums on their way to the host; ``sums`` waits for them."""

    def __init__(self, names: Sequence[str], sums: Tensor) -> None:
        self._names, self._copy = names, HostCopy(sums)

    def sums(self) -> dict[str, float]:
        """The sums of ``loss``, ``right``, ``seen`` and, for every term of the loss, ``loss_<term>``."""
        return dict(zip(self._names, self._copy.wait().tolist(), strict=True))


class Meter:
    """Sums the loss, its terms and the right answers of the samples it is shown, over a pass and over windows of it,
    without a synchronization. A batch's numbers are kept as they are until several can be summed at once."""

    def __init__(self, device: torch.device, terms: Sequence[str] = ()) -> None:
        """``terms`` are the names of the loss's terms."""
        self.terms = tuple(terms)
        self._names = (LOSS, RIGHT, SEEN, *(f"{LOSS}_{term}" for term in terms))
        self._sums = torch.zeros(2, len(self._names), dtype=torch.float64, device=device)
        self._window, self._pass = self._sums
        self._one = torch.ones((), device=device)
        self._held: list[tuple[Tensor, list[Tensor]]] = []

    @property
    def sums(self) -> Tensor:
        """Row 0: sums since the last ``take_window``; row 1: those of the pass before that. A checkpoint keeps both."""
        self._sum_up()
        return self._sums

    def add(self, result: LossOutput, label: Tensor, good: Tensor | None = None) -> None:
        """Count a batch: its mean loss and terms, which nobody may write to any more, its logits ``(N, classes)`` and
        labels ``(N,)`` or ``(N, classes)``. A batch for which ``good``, a boolean scalar, is False does not count.
        Raises ``SettingError`` where the terms have other names, or what should be a scalar is none."""
        if result.terms.keys() != set(self.terms):
            raise SettingError(
                f"the local loss gives the terms {', '.join(result.terms) or 'none'}, but its classifier's attribute "
                f"terms names {', '.join(self.terms) or 'none'}; they must be the same"
            )
        count = len(result.logits)
        right = correct(result.logits, label if len(label) == count else label[:count])
        numbers = [result.loss, self._one, *(result.terms[term] for term in self.terms)]
        if any(number.dim() for number in numbers):
            raise SettingError("the local loss gives a loss or a term that is no scalar; take its mean")
        if good is not None:
            right = right & good
            numbers = [torch.where(good, number, 0) for number in numbers]
        self._held.append((right, numbers))
        if len(self._held) == HELD_BATCHES:
            self._sum_up()

    def take_window(self) -> Totals:
        """What was summed since the last call."""
        totals = Totals(self._names, self.sums[0])
        self._pass += self._window
        self._window.zero_()
        return totals

    def take_pass(self) -> Totals:
        """What was summed since the last call of this method: a whole pass over the data."""
        self.take_window()
        totals = Totals(self._names, self._pass)
        self._pass.zero_()
        return totals

    def _sum_up(self) -> None:
        """Add the held batches to the window: the right answers as they are, means as often as there are samples."""
        if not self._held:
            return
        right, numbers = zip(*self._held, strict=True)
        self._held = []
        device = self._sums.device
        means = torch.stack([torch.stack(column).to(device).double() for column in zip(*numbers, strict=True)])
        samples = to_device(torch.tensor([len(answers) for answers in right], dtype=torch.float64), device)
        sums = (means * samples).sum(1)
        self._window += torch.cat((sums[:1], torch.cat(right).count_nonzero()[None], sums[1:]))
