"""The setting ``deterministic``."""

from collections.abc import Iterator

import pytest
import torch

from trainer.deterministic import deterministic
from trainer.errors import SettingError


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    yield
    torch.use_deterministic_algorithms(False)


def unrepeatable() -> None:
    torch.zeros(3).put_(torch.tensor([0, 0]), torch.ones(2))


def test_an_operation_that_can_not_repeat_is_named() -> None:
    with pytest.raises(SettingError, match="deterministic=true, but torch can't make put_ repeat bit for bit"):
        with deterministic(True):
            unrepeatable()


def test_other_errors_stay_as_they_are() -> None:
    with pytest.raises(RuntimeError, match="^another$"), deterministic(True):
        raise RuntimeError("another")


def test_the_next_job_of_a_sweep_may_be_without() -> None:
    with deterministic(True):
        assert torch.are_deterministic_algorithms_enabled()
    with deterministic(False):
        unrepeatable()
