"""Ending a run early because somebody asked for it: Ctrl-C, or the SIGTERM of a cluster that needs its machines."""

import os
import signal
import threading
import types
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from trainer.errors import PeerError
from trainer.reporting.records import Record
from trainer.reporting.reporter import Reporter

SIGNALS = (signal.SIGINT, signal.SIGTERM)

FINISH_SECONDS = 20.0
"""So long a rank whose steps are done may go on to write its results after a signal, or wait for a tracker to take
them. A launcher sends one also where another rank has died, for which the results would wait, and kills all ranks after
30 s."""


class StopRequest:
    """Whether the run shall end, and by which signal. Rank 0 acts on it, between two steps."""

    def __init__(self) -> None:
        self.signal: int | None = None
        self._put_off = False
        self._limit: threading.Timer | None = None

    def ask(self, number: int) -> None:
        """Remember a signal; safe to call from any thread and from a signal handler."""
        self.signal = number

    def take(self, record: Record, epochs: Sequence[Record]) -> None:
        """Another rank received a signal."""
        self.ask(record["signal"])

    def put_off(self, launched: bool) -> None:
        """All steps are done, so it is too late to end early: a signal that has come has to wait for the results, under
        a launcher no longer than ``FINISH_SECONDS``."""
        self._put_off = self.signal is not None
        if launched and self.signal is not None:
            self._limit = threading.Timer(FINISH_SECONDS, os._exit, (128 + self.signal,))
            self._limit.daemon = True
            self._limit.start()

    def obey(self) -> None:
        """The results are written: let a signal that was put off do what it would have done."""
        if self._limit is not None:
            self._limit.cancel()
        if self._put_off and self.signal is not None:
            os.kill(os.getpid(), self.signal)


@contextmanager
def signals_stop(request: StopRequest, reporter: Reporter, is_first: bool, launched: bool) -> Iterator[None]:
    """While inside, the first SIGINT or SIGTERM asks rank 0 to end the run; the others tell rank 0 and train on until
    their plan ends. One that comes too late for that is put off.

    A launcher sends its ranks a signal that the terminal has sent them already, so under one (``launched``) further
    signals are ignored; without one, a second signal ends the process at once. A launcher also sends SIGTERM when
    another rank has died: then the peer is lost, and the signal does at once what it would have done. Behind any other
    error it waits, blocked, until the error has been reported.
    """

    def handle(number: int, frame: types.FrameType | None) -> None:
        """Take a signal; Python calls this between two instructions of the main thread."""
        first = request.signal is None
        if not first and not launched:
            signal.default_int_handler(number, frame)
        if not first:
            return
        request.ask(number)
        if not is_first:
            reporter.post(lambda: {"kind": "stop", "signal": number})

    def restore() -> None:
        """Let signals do again what they did before."""
        for number in SIGNALS:
            signal.signal(number, before[number])

    before = {number: signal.signal(number, handle) for number in SIGNALS}
    try:
        yield
    except Exception as error:
        restore()
        if request.signal is not None:
            if not isinstance(error, PeerError):
                signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
            signal.pthread_kill(threading.get_ident(), request.signal)
        raise
    finally:
        restore()
