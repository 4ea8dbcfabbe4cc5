"""Control traffic: small messages between ranks over a key-value store, off the training loop.

The store is torchrun's TCPStore (a HashStore in one process), under a prefix for each job. Nothing here uses the
activation edges, and nothing that training calls waits for another rank.
"""

import json
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import torch.distributed as dist

from trainer.transport.lost import lost_group, lost_store

T = TypeVar("T")


class Control:
    """One rank's end of the control traffic. Each thread takes its own ``clone``: a store's client serves one call at
    a time, and a waiting one would hold up the rest."""

    def __init__(self, store: dist.Store, rank: int, world_size: int) -> None:
        self._store = store
        self.rank = rank
        self.world_size = world_size

    def clone(self) -> "Control":
        """The same traffic through a connection of its own."""
        return Control(self._store.clone(), self.rank, self.world_size)

    def agree(self, key: str, decide: Callable[[], T]) -> T:
        """What rank 0 decides, on every rank. Only rank 0 calls ``decide``, and only the first time; the result must be
        JSON. The others wait as long as it takes: where rank 0 fails, the launcher ends them. This and all else here
        raises ``PeerError`` where the store has gone."""
        key = f"agreed/{key}"
        if self.rank == 0 and not self._has(key):
            self._set(key, json.dumps(decide()))
        return json.loads(self._get(key))

    def agreed(self, key: str) -> Any:
        """What has been agreed on under a key, or None; does not wait."""
        key = f"agreed/{key}"
        return json.loads(self._get(key)) if self._has(key) else None

    def post(self, record: dict[str, Any]) -> None:
        """Send a record to rank 0. Records of one rank arrive in order."""
        with lost_store():
            self._store.queue_push("records", json.dumps({"rank": self.rank, **record}))

    def records(self) -> Iterator[dict[str, Any]]:
        """On rank 0: every record that a rank posts, as it comes, without an end."""
        while True:
            with lost_store():
                record = self._store.queue_pop("records")
            yield json.loads(record)

    def part(self) -> None:
        """Exit barrier. The others wait for rank 0, because a launcher may end all ranks once one exits; rank 0 waits
        until each of them has seen that, because it may host the store."""
        if self.rank > 0:
            self._get("parted/0")
            self._set(f"parted/{self.rank}", "")
            return
        self._set("parted/0", "")
        for rank in range(1, self.world_size):
            self._get(f"parted/{rank}")

    def share(self, key: str, value: Any) -> list[Any]:
        """Every rank's ``value``, which must be JSON, by rank; waits until each has called this. Not for the training
        loop."""
        self._set(f"shared/{key}/{self.rank}", json.dumps(value))
        return [json.loads(self._get(f"shared/{key}/{rank}")) for rank in range(self.world_size)]

    def gather(self, value: Any) -> list[Any] | None:
        """At the end of a run: every rank's ``value`` on rank 0, ``None`` elsewhere. All ranks call it."""
        if self.world_size == 1:
            return [value]
        values = [None] * self.world_size if self.rank == 0 else None
        with lost_group("the collecting of what the ranks have trained"):
            dist.gather_object(value, values)
        return values

    def _get(self, key: str) -> bytes:
        with lost_store():
            return self._store.get(key)

    def _set(self, key: str, value: str) -> None:
        with lost_store():
            self._store.set(key, value)

    def _has(self, key: str) -> bool:
        with lost_store():
            return self._store.check([key])
