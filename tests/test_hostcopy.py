"""Waiting for a device, as the host does it."""

import signal
from datetime import timedelta

import pytest
import torch

from trainer.hostcopy import HostCopy, DeviceEvent


class Pending(DeviceEvent):
    """A moment that has not passed until somebody says so."""

    def __init__(self) -> None:
        super().__init__(torch.device("cpu"))
        self.over = False

    def passed(self) -> bool:
        return self.over


def test_on_the_cpu_nothing_is_waited_for() -> None:
    values = torch.arange(3)
    copy = HostCopy(values)
    values += 1
    assert copy.ready() and copy.wait(timedelta(0)).tolist() == [0, 1, 2]


def test_on_the_cpu_what_is_final_is_not_copied() -> None:
    values = torch.arange(3)
    assert HostCopy(values, final=True).wait().data_ptr() == values.data_ptr()


def test_a_device_that_does_not_get_there_is_given_up() -> None:
    with pytest.raises(TimeoutError):
        Pending().wait(timedelta(milliseconds=10))


def test_signal_handlers_run_while_the_host_waits() -> None:
    moment = Pending()

    def pass_it(*_: object) -> None:
        moment.over = True

    before = signal.signal(signal.SIGALRM, pass_it)
    signal.setitimer(signal.ITIMER_REAL, 0.02)
    try:
        moment.wait(timedelta(seconds=20))
    finally:
        signal.signal(signal.SIGALRM, before)
