"""The alarm: the first error of an attempt, as the ranks of every machine hear of it over the key-value store."""

import json

import torch.distributed as dist

from trainer.launch import Launch


class Alarm:
    """One rank's end of it. Each thread takes its own ``clone``."""

    def __init__(self, store: dist.Store, machine: int) -> None:
        """``machine`` is the number of this rank's machine."""
        self._store, self._machine = store, machine

    @classmethod
    def of(cls, launch: Launch) -> "Alarm":
        """The alarm of this start of a launch."""
        return cls(launch.store_of_attempt("errors"), launch.machine)

    def clone(self) -> "Alarm":
        """The same alarm through a connection of its own."""
        return Alarm(self._store.clone(), self._machine)

    def sound(self, text: str) -> bool:
        """Whether this rank is the first to fail, and so the one whose error people read. ``text`` is for people on
        other machines."""
        if self._store.add("errors", 1) > 1:
            return False
        self._store.set("error", json.dumps([self._machine, text]))
        return True

    def sounded(self) -> bool:
        """Whether some rank has failed and said so."""
        return self._store.check(["error"])

    def from_elsewhere(self) -> str | None:
        """What people on this machine are to be told of an error on another one: given once, to the first of the
        machine's ranks that asks. None where there is nothing to tell."""
        if not self.sounded():
            return None
        origin, text = json.loads(self._store.get("error"))
        if origin == self._machine or self._store.add(f"told/{self._machine}", 1) > 1:
            return None
        return str(text)
