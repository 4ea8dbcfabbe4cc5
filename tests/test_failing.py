"""How the other ranks end after an error."""

import os
from pathlib import Path

import pytest
import torch.distributed as dist

from trainer.failing import end_with_others
from trainer.launch import Launch
from trainer.transport.alarm import Alarm
from trainer.transport.heartbeat import Beats


class _ExitError(BaseException):
    pass


@pytest.fixture
def launch(tmp_path: Path) -> Launch:
    """Rank 1 of two on one machine."""
    launch = Launch(1, 2, 1, 2, environment={"RANK": "1"})
    launch.__dict__["store"] = dist.FileStore(str(tmp_path / "store"), 2)
    return launch


def test_a_rank_that_can_not_end_by_itself_is_ended(launch: Launch, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where a GPU waits for a packet: nothing raises, and a signal would only be noted."""
    now = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])

    def leave(status: int) -> None:
        raise _ExitError(status)

    monkeypatch.setattr(os, "_exit", leave)
    look = end_with_others(launch)
    look()
    now[0] += 1000
    look()
    Alarm.of(launch).sound("rank 0 failed: no memory")
    for _ in range(3):
        look()  # the launcher does it, as a rule
        now[0] += 3
    now[0] += 3
    with pytest.raises(_ExitError, match="1"):
        look()


def test_a_rank_that_hangs_where_nobody_has_a_time_limit(
    launch: Launch, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As where its last step is done, and the others wait for it to say so."""

    def leave(status: int) -> None:
        raise _ExitError(status)

    monkeypatch.setattr(os, "_exit", leave)
    look = end_with_others(launch, timeout_seconds=5.0)
    own = Beats.of(launch)
    with pytest.raises(_ExitError, match="1"):
        for _ in range(40):
            own.beat()
            look()
    said = capsys.readouterr().err
    assert said == "error: rank 0 stopped answering (stopped, hung or killed) for timeout_seconds=5\n"
    assert Alarm.of(launch).sounded()
