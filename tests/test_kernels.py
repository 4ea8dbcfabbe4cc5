"""Which kernels torch takes."""

from collections.abc import Iterator

import pytest
import torch

from trainer.errors import SettingError
from trainer.kernels import kernels


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    yield
    torch.use_deterministic_algorithms(False)


def unrepeatable() -> None:
    torch.zeros(3).put_(torch.tensor([0, 0]), torch.ones(2))


def test_an_operation_that_can_not_repeat_is_named() -> None:
    with pytest.raises(SettingError, match="deterministic=true, but torch can't make put_ repeat bit for bit"):
        with kernels(True, False, False):
            unrepeatable()


def test_other_errors_stay_as_they_are() -> None:
    with pytest.raises(RuntimeError, match="^another$"), kernels(True, False, False):
        raise RuntimeError("another")


def test_too_small_a_gpu_says_what_takes_less() -> None:
    with pytest.raises(SettingError, match=r"memory is too small \(Tried to allocate 9 GiB\); a smaller batch"):
        with kernels(False, False, False):
            raise torch.OutOfMemoryError("Tried to allocate 9 GiB\nand more")


def test_the_next_job_of_a_sweep_may_be_without() -> None:
    with kernels(True, False, False):
        assert torch.are_deterministic_algorithms_enabled()
    with kernels(False, True, False):
        unrepeatable()
        assert torch.backends.cudnn.benchmark
    with kernels(False, False, False):
        assert not torch.backends.cudnn.benchmark
