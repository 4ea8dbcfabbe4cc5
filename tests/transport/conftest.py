"""Real ranks for tests of the transport: forked from this process, so that they start at once, and joined by gloo."""

import multiprocessing
import socket
import time
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

import pytest

from trainer.launch import Launch
from trainer.rank import Rank

SECONDS = 10.0
"""How long a rank waits for another one."""

OnRanks = Callable[[int, Callable[[Rank], Any]], list[Any]]


@pytest.fixture
def on_ranks() -> OnRanks:
    """``on_ranks(count, work)``: what ``work`` gives on each of ``count`` ranks."""
    return _on_ranks


def _on_ranks(count: int, work: Callable[[Rank], Any]) -> list[Any]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    fork = multiprocessing.get_context("fork")
    pipes = [fork.Pipe(duplex=False) for _ in range(count)]
    ranks = [
        fork.Process(target=_run, args=(number, count, port, work, pipe), daemon=True)
        for number, (_, pipe) in enumerate(pipes)
    ]
    for rank in ranks:
        rank.start()
    results = [result.recv() if result.poll(4 * SECONDS) else "no answer" for result, _ in pipes]
    for rank in ranks:
        rank.kill()
        rank.join()
    failed = [error for error in results if isinstance(error, str)]
    assert not failed, "\n".join(failed)
    return results


def _run(number: int, count: int, port: int, work: Callable[[Rank], Any], pipe: Connection) -> None:
    environment = {"RANK": str(number), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    try:
        rank = Rank.join(Launch(number, count, number, count, 0, environment), 0, "cpu", 1, SECONDS)
        result = work(rank)
        rank.leave()
    except Exception:
        result = f"rank {number}: {traceback.format_exc()}"
    pipe.send(result)
    time.sleep(4 * SECONDS)  # until it is killed: rank 0 has the store that the others still need
