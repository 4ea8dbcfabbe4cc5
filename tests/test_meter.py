"""A block's running loss and accuracy."""

import pytest
import torch

from trainer.errors import SettingError
from trainer.local_losses.base import LossOutput
from trainer.meter import HELD_BATCHES, Meter

CPU = torch.device("cpu")
LABEL = torch.tensor([0, 1])
ONE_RIGHT = torch.tensor([[2.0, 1.0], [2.0, 1.0]])


def batch(loss: float, **terms: float) -> LossOutput:
    return LossOutput(torch.tensor(loss), ONE_RIGHT, {name: torch.tensor(value) for name, value in terms.items()})


def test_means_count_as_often_as_there_are_samples_and_right_answers_once() -> None:
    meter = Meter(CPU, ["first", "second"])
    meter.add(batch(3.0, second=0.5, first=2.5), LABEL)
    meter.add(LossOutput(torch.tensor(1.0), ONE_RIGHT[:1], {"first": LABEL[0], "second": LABEL[1]}), LABEL)
    assert meter.take_window().sums() == {"loss": 7, "right": 2, "seen": 3, "loss_first": 5, "loss_second": 2}


@pytest.mark.parametrize("batches", [1, HELD_BATCHES, HELD_BATCHES + 1])
def test_a_pass_is_all_of_its_windows(batches: int) -> None:
    meter = Meter(CPU)
    for _ in range(batches):
        meter.add(batch(0.5), LABEL)
    window = meter.take_window().sums()
    assert window == {"loss": batches, "right": batches, "seen": 2 * batches}
    assert meter.sums.tolist() == [[0, 0, 0], [batches, batches, 2 * batches]]
    meter.add(batch(1.5), LABEL)
    assert meter.take_pass().sums() == {"loss": batches + 3, "right": batches + 1, "seen": 2 * batches + 2}
    assert meter.take_pass().sums() == {"loss": 0, "right": 0, "seen": 0}


def test_a_bad_step_does_not_count() -> None:
    meter = Meter(CPU)
    for loss, good in ((torch.nan, False), (2.0, True)):
        meter.add(batch(loss), LABEL, torch.tensor(good))
    assert meter.take_pass().sums() == {"loss": 4, "right": 1, "seen": 2}


def test_a_number_that_changes_later_counts_as_it_was() -> None:
    learned, result = torch.nn.Parameter(torch.tensor(1.0)), batch(1.0)
    meter = Meter(CPU, ["learned"])
    for _ in range(2):
        meter.add(result._replace(terms={"learned": learned}).detach(), LABEL)
        with torch.no_grad():
            learned += 1
    assert meter.take_pass().sums()["loss_learned"] == 2 * 1 + 2 * 2


def test_what_is_no_scalar_is_refused() -> None:
    with pytest.raises(SettingError, match="gives a loss or a term that is no scalar; take its mean"):
        Meter(CPU).add(LossOutput(torch.ones(2), ONE_RIGHT), LABEL)


def test_other_terms_than_announced_are_refused() -> None:
    with pytest.raises(SettingError, match="the local loss gives the terms other, but its .* terms names first"):
        Meter(CPU, ["first"]).add(batch(1.0, other=1.0), LABEL)
