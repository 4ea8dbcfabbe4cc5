"""A rank that has gone: what the process group raises then, as an error that a person can read."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist

from trainer.errors import PeerError


@contextmanager
def lost_group(what: str) -> Iterator[None]:
    """Turn a process group's error in the middle of ``what``, which a library does for several ranks together, into one
    that says so."""
    try:
        yield
    except RuntimeError as error:
        if isinstance(error, dist.DistError) or "gloo" in str(error):
            raise PeerError(f"a rank went away or did not answer in time during {what}") from error
        raise


@contextmanager
def lost_store() -> Iterator[None]:
    """Turn the key-value store's error into one that a person can read: rank 0 or its launcher, which has the store, is
    no longer there."""
    try:
        yield
    except dist.DistError as error:
        reason = str(error).splitlines()[0]
        raise PeerError(
            f"rank 0 or its launcher, which keeps what the ranks tell each other, has gone: {reason}"
        ) from error


@contextmanager
def lost_peer(rank: int, what: str) -> Iterator[None]:
    """Turn the process group's error about a peer, or the end of a device's wait for it, into one that names it."""
    try:
        yield
    except (RuntimeError, TimeoutError) as error:
        if isinstance(error, torch.AcceleratorError):  # this rank's own
            raise
        raise PeerError(f"rank {rank} went away or did not answer in time while this rank waited for {what}") from error
