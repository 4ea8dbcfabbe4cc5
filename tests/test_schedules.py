"""Learning-rate schedules at points worked out by hand."""

import pytest

from trainer.errors import SettingError
from trainer.schedules import Constant, Cosine


@pytest.mark.parametrize(("epoch", "factor"), [(0, 1.0), (5, 0.5), (10, 0.0), (2.5, 0.8535533905932737)])
def test_cosine(epoch: float, factor: float) -> None:
    assert Cosine()(epoch, 10) == pytest.approx(factor)


def test_cosine_behind_the_published_warm_up() -> None:
    schedule = Cosine(warmup_epochs=10)
    assert schedule(0, 160) == pytest.approx(0.01)
    # epoch 6 of the published formula: 0.5 (1 + cos(pi e / E)) (e - 1) / 10 + 0.01 (11 - e) / 10, counted from 0
    assert schedule(5, 160) == pytest.approx(0.9975923633360985 * 0.5 + 0.01 * 0.5)
    assert schedule(80, 160) == pytest.approx(0.5)


def test_constant() -> None:
    assert Constant()(3, 10) == 1.0


def test_a_negative_warm_up_is_refused() -> None:
    with pytest.raises(SettingError, match="scheduler.warmup_epochs=-1"):
        Cosine(-1)
