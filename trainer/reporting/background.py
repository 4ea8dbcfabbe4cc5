"""A listener on a thread of its own, for one that talks to the network and may be slow."""

import logging
import threading
from collections.abc import Callable
from queue import SimpleQueue

from trainer.reporting.listener import Listener
from trainer.reporting.records import Record, RunFacts

CLOSE_SECONDS = 120.0
"""How long the end of a run waits for a slow listener to take the rest."""

log = logging.getLogger(__name__)


class Background(Listener):
    """Hands everything on to another listener, in order, without ever making the others wait for it."""

    def __init__(self, listener: Listener, patience: Callable[[bool], float]) -> None:
        """``patience`` tells at the end how many seconds to wait for the listener, given whether the run failed."""
        self._listener, self._patience, self._failing = listener, patience, False
        self._queue: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="background-listener", daemon=True)
        self._thread.start()

    def start(self, run: RunFacts) -> None:
        """Hand it on."""
        self._queue.put(lambda: self._listener.start(run))

    def step(self, record: Record) -> None:
        """Hand it on."""
        self._queue.put(lambda: self._listener.step(record))

    def epoch(self, record: Record) -> None:
        """Hand it on."""
        self._queue.put(lambda: self._listener.epoch(record))

    def summary(self, record: Record) -> None:
        """Hand it on."""
        self._queue.put(lambda: self._listener.summary(record))

    def warning(self, text: str) -> None:
        """Hand it on."""
        self._queue.put(lambda: self._listener.warning(text))

    def close(self, failed: bool) -> None:
        """Hand it on, and wait for the listener to be done, but not for ever."""
        self._queue.put(lambda: self._listener.close(failed))
        self._queue.put(None)
        seconds = self._patience(failed)
        self._thread.join(seconds)
        if self._thread.is_alive():
            log.warning("the tracker did not finish within %.0f seconds and is left behind", seconds)

    def _run(self) -> None:
        while (action := self._queue.get()) is not None:
            try:
                action()
            except Exception as error:  # as the board has it: said once, and told the next thing all the same
                if not self._failing:
                    self._failing = True
                    name = type(self._listener).__name__
                    log.warning("%s failed: %s: %s; training goes on", name, type(error).__name__, error)
