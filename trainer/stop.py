"""Ending a run early because somebody asked for it: Ctrl-C, or the SIGTERM of a cluster that needs its machines."""

import os
import signal
import types
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from trainer.errors import PeerError
from trainer.reporting.records import Record
from trainer.reporting.reporter import Reporter

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopRequest:
    """Whether the run shall end, and by which signal. Rank 0 acts on it, between two steps."""

    def __init__(self) -> None:
        self.signal: int | None = None

    def ask(self, number: int) -> None:
        """Remember a signal; safe to call from any thread and from a signal handler."""
        self.signal = number

    def take(self, record: Record, epochs: Sequence[Record]) -> None:
        """Another rank received a signal."""
        self.ask(record["signal"])


@contextmanager
def signals_stop(
    request: StopRequest, reporter: Reporter, is_first: bool, launched: bool, stopped: Callable[[], bool]
) -> Iterator[None]:
    """While inside, the first SIGINT or SIGTERM asks rank 0 to end the run; the others tell rank 0 and train on until
    their plan ends.

    A launcher sends its ranks a signal that the terminal has sent them already, so under one (``launched``) further
    signals are ignored; without one, a second signal ends the process at once. A launcher also sends SIGTERM when
    another rank has died: then no plan comes to its end (``stopped`` is False, or the peer is lost), and the signal
    does what it would have done, here at the end.
    """

    def handle(number: int, frame: types.FrameType | None) -> None:
        first, request.signal = request.signal is None, number
        if not first and not launched:
            signal.default_int_handler(number, frame)
        if first and not is_first:
            reporter.post(lambda: {"kind": "stop", "signal": number})

    before = {number: signal.signal(number, handle) for number in SIGNALS}
    received: int | None = None
    try:
        yield
        received = None if stopped() else request.signal
    except PeerError:
        received = request.signal
        if received is None:
            raise
    finally:
        for number in SIGNALS:
            signal.signal(number, before[number])
        if received is not None:
            os.kill(os.getpid(), received)
