"""Heartbeats: how a rank that stands still is told apart from those that only wait for it."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from trainer.transport.control import Control

BEAT_SECONDS = 0.5

JOIN_SECONDS = 5.0
"""How long the end waits for the last beat, of which a store that has just gone may never speak."""

LISTEN_SECONDS = 3.0
"""How long a rank is listened for before it counts as silent."""


@contextmanager
def heartbeat(control: Control, look: Callable[[], None]) -> Iterator[None]:
    """While inside, and after an error until the process ends, a thread of this rank counts up a number in the
    store, and calls ``look``."""
    if control.world_size == 1:
        yield
        return
    own, over = control.clone(), threading.Event()

    def beat() -> None:
        """Count and look until the end."""
        try:
            while not over.wait(BEAT_SECONDS):
                own.beat()
                look()
        except RuntimeError:  # the store has gone, and with it whoever would listen
            return

    thread = threading.Thread(target=beat, name="heartbeat", daemon=True)
    thread.start()
    yield
    over.set()  # not after an error: a rank that waits to hear who failed is alive
    thread.join(JOIN_SECONDS)  # a thread that is in the store when the interpreter ends makes the process abort


def silent_ranks(control: Control) -> list[int]:
    """The ranks whose number stands still: stopped, hung in a system call, or gone."""
    before = control.beats()
    time.sleep(LISTEN_SECONDS)
    return [
        rank for rank, (a, b) in enumerate(zip(before, control.beats(), strict=True)) if a == b and rank != control.rank
    ]
