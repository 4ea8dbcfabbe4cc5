"""A rank's voice: it sends measurements to rank 0 from a thread of its own, so that the training thread neither waits
for the device to have them nor for the network to take them."""

import threading
from collections.abc import Callable
from queue import SimpleQueue

from trainer.reporting.records import Record
from trainer.transport.control import Control


class Reporter:
    """Posts records in the order in which they were given."""

    def __init__(self, control: Control) -> None:
        """Starts the thread, with a connection of its own."""
        self._control = control.clone()
        self._queue: SimpleQueue[Callable[[], Record] | None] = SimpleQueue()
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="reporter", daemon=True)
        self._thread.start()

    def post(self, make: Callable[[], Record]) -> None:
        """Send what ``make`` gives; it is called on the reporter's thread and may wait for the device."""
        self._queue.put(make)

    def warn(self, text: str) -> None:
        """Send a warning for people to read."""
        self.post(lambda: {"kind": "warning", "text": text})

    def fail(self, error: Exception) -> None:
        """Something without which training is in vain has ended with ``error``: from now on ``check`` raises it. Any
        thread may call this."""
        self._error = self._error or error

    def check(self) -> None:
        """Raise what ``fail`` was told, or what ended the reporter's own thread: then nothing of this rank is heard any
        more, and no checkpoint becomes whole."""
        if self._error is not None:
            raise self._error

    def close(self) -> None:
        """Send the rest and tell rank 0 that nothing follows from here. Raises as ``check`` does."""
        self._queue.put(lambda: {"kind": "end"})
        self._queue.put(None)
        self._thread.join()
        self.check()

    def _run(self) -> None:
        while (make := self._queue.get()) is not None:
            try:
                self._control.post(make())
            except Exception as error:
                self.fail(error)
                return
