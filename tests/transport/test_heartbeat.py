"""The thread that shows that a rank is alive."""

import threading

import pytest
from torch.distributed import HashStore

from trainer.transport.heartbeat import BEAT_SECONDS, Beats, Silence, heartbeat, silent_ranks


def test_no_beat_outlives_the_job() -> None:
    # A thread that is in the store while the interpreter ends makes the process abort.
    looking, finish = threading.Event(), threading.Event()

    def look() -> None:
        looking.set()
        finish.wait(10)

    with heartbeat(Beats(HashStore(), 0, 2), look):
        assert looking.wait(10)
        threading.Timer(0.2, finish.set).start()
    assert "heartbeat" not in {thread.name for thread in threading.enumerate()}


def test_a_rank_that_stands_still_is_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    store = HashStore()
    zero, *others = (Beats(store, rank, 3) for rank in range(3))
    for beats in (zero, *others):
        beats.beat()
    monkeypatch.setattr("time.sleep", lambda seconds: others[0].beat())
    assert silent_ranks(zero) == [2]


def test_a_rank_that_is_silent_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainer.transport.heartbeat.SILENCE_MARGIN", 1.0)
    store = HashStore()
    zero, one, two = (Beats(store, rank, 3) for rank in range(3))
    silence = Silence(zero, 5.0)

    def seconds(count: float, *beating: Beats) -> list[int]:
        silent: list[int] = []
        for _ in range(round(count / BEAT_SECONDS)):
            for beats in beating:
                beats.beat()
            silent = silence.look() or silent
        return silent

    assert seconds(20, zero, one, two) == []
    assert seconds(5, zero, two) == []
    assert seconds(10, zero, two) == [1]
    seconds(10, zero, one, two)
    assert seconds(20, zero, one, two) == []
