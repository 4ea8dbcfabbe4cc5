"""Which start of a launch this is, where the launchers of several machines restart their ranks."""

import json
import time
import uuid

import torch.distributed as dist

POLL_SECONDS = 0.05


def agree_on_attempt(store: dist.Store, rank: int, world_size: int) -> int:
    """The number of this start, from 1 and the same on every rank; every rank calls it once.

    Each launcher counts only the restarts that its own ranks have caused, so their counts differ. Rank 0 counts here.
    The others may read its count before it is raised, so they show up under each number that they see, and a number
    holds once rank 0 has seen there every process that is alive now.
    """
    if rank == 0:
        attempt: int = store.add("attempt", 1)
        here = [store.get(f"here/{attempt}/{other}").decode() for other in range(1, world_size)]
        store.set(f"together/{attempt}", json.dumps(here))
        return attempt
    token = uuid.uuid4().hex
    while True:
        attempt = store.add("attempt", 0)
        store.set(f"here/{attempt}/{rank}", token)
        together = f"together/{attempt}"
        if store.check([together]) and token in json.loads(store.get(together)):
            return attempt
        time.sleep(POLL_SECONDS)
