"""A signal that asks for an early end: heard, put off where it comes too late, obeyed when the results are written."""

import os
import signal
import threading
from collections.abc import Iterator

import pytest
import torch.distributed as dist

from trainer.errors import NonFiniteLossError, PeerError
from trainer.reporting.reporter import Reporter
from trainer.stop import SIGNALS, StopRequest, signals_stop
from trainer.transport.control import Control


@pytest.fixture
def outside() -> Iterator[list[int]]:
    """The signals that nothing inside has kept."""
    heard: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: heard.append(number))
    yield heard
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def reporter() -> Reporter:
    """A lone rank's."""
    return Reporter(Control(dist.HashStore(), 0, 1))


@pytest.mark.parametrize("launched", [False, True])
def test_a_signal_that_comes_too_late_waits_for_the_results(
    launched: bool, outside: list[int], reporter: Reporter
) -> None:
    request = StopRequest()
    with signals_stop(request, reporter, is_first=True, launched=launched):
        os.kill(os.getpid(), signal.SIGTERM)
    request.put_off(launched)
    assert request.signal == signal.SIGTERM and outside == []
    request.obey()
    assert outside == [signal.SIGTERM]


def test_without_a_signal_nothing_is_put_off(outside: list[int], reporter: Reporter) -> None:
    request = StopRequest()
    with signals_stop(request, reporter, is_first=True, launched=False):
        pass
    request.put_off(launched=False)
    request.obey()
    os.kill(os.getpid(), signal.SIGTERM)
    assert request.signal is None and outside == [signal.SIGTERM]


def test_a_signal_after_a_lost_peer_is_the_launchers(outside: list[int], reporter: Reporter) -> None:
    request = StopRequest()
    with pytest.raises(PeerError), signals_stop(request, reporter, is_first=True, launched=True):
        os.kill(os.getpid(), signal.SIGTERM)
        raise PeerError("rank 1 went away")
    assert outside == [signal.SIGTERM]


def test_a_signal_before_another_error_waits_for_its_report(outside: list[int], reporter: Reporter) -> None:
    request = StopRequest()
    with pytest.raises(NonFiniteLossError), signals_stop(request, reporter, is_first=True, launched=True):
        os.kill(os.getpid(), signal.SIGTERM)
        raise NonFiniteLossError("the loss is nan")
    assert outside == []
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    assert outside == [signal.SIGTERM]


def test_a_second_signal_ends_a_process_without_a_launcher(outside: list[int], reporter: Reporter) -> None:
    with pytest.raises(KeyboardInterrupt), signals_stop(StopRequest(), reporter, is_first=True, launched=False):
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)


def test_a_launched_rank_does_not_wait_for_ever_for_another(monkeypatch: pytest.MonkeyPatch) -> None:
    left = threading.Event()
    monkeypatch.setattr("trainer.stop.FINISH_SECONDS", 0.01)
    monkeypatch.setattr(os, "_exit", lambda status: left.set() if status == 128 + signal.SIGTERM else None)
    request = StopRequest()
    request.ask(signal.SIGTERM)
    request.put_off(launched=True)
    assert left.wait(5)
