"""Heartbeats: how a rank that stands still is told apart from those that only wait for it."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch.distributed as dist

from trainer.launch import Launch

BEAT_SECONDS = 0.5

JOIN_SECONDS = 5.0
"""How long shutdown waits for the heartbeat thread, which can be stuck in a store that has just gone."""

SILENCE_MARGIN = 10.0
"""So many seconds longer than the time limit a rank may be silent: whoever waits for it says more."""

CHECK_SECONDS = 10.0
"""How often a rank counts the others' beats."""

LISTEN_SECONDS = 3.0
"""How long a rank is listened for before it counts as silent."""


class Beats:
    """How often each rank has shown that it is alive, in the key-value store."""

    def __init__(self, store: dist.Store, rank: int, world_size: int) -> None:
        self._store, self.rank, self.world_size = store, rank, world_size

    @classmethod
    def of(cls, launch: Launch) -> "Beats":
        """Those of this start of a launch."""
        return cls(launch.store_of_attempt("beats"), launch.rank, launch.world_size)

    def clone(self) -> "Beats":
        """The same numbers through a connection of its own."""
        return Beats(self._store.clone(), self.rank, self.world_size)

    def beat(self) -> None:
        """Show that this process is alive."""
        self._store.add(f"beat/{self.rank}", 1)

    def counts(self) -> list[int]:
        """How often each rank has done so."""
        return [self._store.add(f"beat/{rank}", 0) for rank in range(self.world_size)]


class Silence:
    """Which ranks have been silent for long, as a rank notices that goes on beating. Time in which it stood still
    itself, as where a person stops the whole job, does not count."""

    def __init__(self, beats: Beats, seconds: float) -> None:
        """Silent for long is a rank whose number stands still for ``seconds`` and a margin, in which a rank that waits
        for a packet of it gives up first, and has more to say."""
        self._beats, self._seconds = beats, seconds + SILENCE_MARGIN
        self._every = max(1, round(min(CHECK_SECONDS, seconds) / BEAT_SECONDS))
        self._calls = 0
        self._last: list[int] = []
        self._since = [0] * beats.world_size

    def look(self) -> list[int]:
        """Those ranks; to be called after each beat."""
        self._calls += 1
        if self._calls % self._every:
            return []
        counts = self._beats.counts()
        for rank, count in enumerate(counts):
            if not self._last or count != self._last[rank]:
                self._since[rank] = self._calls
        self._last = counts
        return [
            rank for rank, since in enumerate(self._since) if (self._calls - since) * BEAT_SECONDS >= self._seconds
        ]


@contextmanager
def heartbeat(beats: Beats, look: Callable[[], None]) -> Iterator[None]:
    """While inside, and after an error until the process ends, a thread of this rank beats, and calls ``look``."""
    if beats.world_size == 1:
        yield
        return
    own, over = beats.clone(), threading.Event()

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


def silent_ranks(beats: Beats) -> list[int]:
    """The ranks whose number stands still: stopped, hung in a system call, or gone."""
    before = beats.counts()
    time.sleep(LISTEN_SECONDS)
    pairs = enumerate(zip(before, beats.counts(), strict=True))
    return [rank for rank, (then, now) in pairs if then == now and rank != beats.rank]
