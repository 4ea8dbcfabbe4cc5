"""Warnings of every rank on their way to the one console."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class _Forward(logging.Handler):
    """Hands each different warning on once."""

    def __init__(self, warn: Callable[[str], None]) -> None:
        super().__init__(logging.WARNING)
        self._warn = warn
        self._said: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        """Hand a record on, unless its text was."""
        try:
            text = " ".join(record.getMessage().split())
        except Exception:  # a library's format does not fit its arguments
            self.handleError(record)
            return
        if text not in self._said:
            self._said.add(text)
            self._warn(text)


@contextmanager
def forwarded_warnings(warn: Callable[[str], None]) -> Iterator[None]:
    """While inside, what is logged or warned of in this process goes to ``warn``, each text once, and nowhere else."""
    root, handler = logging.getLogger(), _Forward(warn)
    before = root.handlers[:]
    root.handlers[:] = [handler]
    logging.captureWarnings(True)
    try:
        yield
    finally:
        logging.captureWarnings(False)
        root.handlers[:] = before
