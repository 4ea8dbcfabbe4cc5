"""Warnings of every rank on their way to the one console."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from trainer.reporting.reporter import Reporter


class _Forward(logging.Handler):
    """Hands each different warning to the reporter once."""

    def __init__(self, reporter: Reporter) -> None:
        super().__init__(logging.WARNING)
        self._reporter = reporter
        self._said: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        text = " ".join(record.getMessage().split())
        if text not in self._said:
            self._said.add(text)
            self._reporter.warn(text)


@contextmanager
def forwarded_warnings(reporter: Reporter) -> Iterator[None]:
    """While inside, what is logged or warned of in this process reaches the console of rank 0, and nothing else."""
    root, handler = logging.getLogger(), _Forward(reporter)
    before = root.handlers[:]
    root.handlers[:] = [handler]
    logging.captureWarnings(True)
    try:
        yield
    finally:
        logging.captureWarnings(False)
        root.handlers[:] = before
