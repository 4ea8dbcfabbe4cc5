"""How an error ends a run: with one sentence, said once on each machine, and an exit status that is not 0."""

import contextlib
import math
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from typing import NoReturn

from trainer.errors import PeerError, StoppedError, TrainerError
from trainer.launch import Launch
from trainer.stop import SIGNALS
from trainer.transport.alarm import Alarm
from trainer.transport.heartbeat import BEAT_SECONDS, Beats, Silence, silent_ranks

PEER_SECONDS = 2.0
"""How long a rank that lost a peer waits for the peer's own error."""

LEAVE_SECONDS = 10.0
"""How long after another rank's error a rank may still be there: the launcher ends it, as a rule, but where a GPU waits
for a packet that will not come its signal is only noted. The rank that speaks needs less."""

STOPPED = "stopped answering (stopped, hung or killed)"

HEARD_SECONDS = 2.0
"""How long the store, which may be the failing machine's, stays so that other machines hear of the error."""


def fail(error: Exception, launch: Launch | None, show_traceback: bool) -> NoReturn:
    """Report an error once for all ranks, and leave with its exit status. What is nobody's setting is a mistake of the
    program's: its traceback belongs to whoever reads this."""
    if isinstance(error, StoppedError):
        _leave_stopped(error, launch)
    mendable = isinstance(error, TrainerError) or _names_a_file(error)
    status = error.exit_status if isinstance(error, TrainerError) else 2 if mendable else 1
    text = sentence(error)
    if launch is not None and launch.world_size > 1 and not _speaks(error, text, launch):
        _wait_for_the_end(launch, status)
    print(f"error: {_culprit(error, launch)}{text}", file=sys.stderr)
    if show_traceback or not mendable:
        traceback.print_exception(error)
    sys.stdout.flush()
    sys.stderr.flush()
    if launch is not None and not launch.one_node:
        time.sleep(HEARD_SECONDS)
    os._exit(status)


def end_with_others(launch: Launch, timeout_seconds: float = math.inf) -> Callable[[], None]:
    """What to call after each beat, from one thread: it ends this process where a rank of another machine has failed,
    of which the launcher here does not know, a while after any rank has, and where a rank has been silent for
    ``timeout_seconds``. One rank of each machine says why."""
    if launch.world_size == 1:
        return lambda: None
    alarm, limit = Alarm.of(launch).clone(), math.inf
    silence = Silence(Beats.of(launch).clone(), timeout_seconds)

    def look() -> None:
        """End this process if it is time."""
        nonlocal limit
        told = alarm.from_elsewhere()
        if told is not None:
            print(f"error: {told}", file=sys.stderr, flush=True)
            os._exit(1)
        if limit == math.inf and alarm.sounded():
            limit = time.monotonic() + LEAVE_SECONDS
        if silent := silence.look():
            text = f"{_named(silent)} {STOPPED} for timeout_seconds={timeout_seconds:g}"
            if alarm.sound(text):
                print(f"error: {text}", file=sys.stderr, flush=True)
                os._exit(1)
        if time.monotonic() > limit:
            os._exit(1)

    return look


def _culprit(error: Exception, launch: Launch | None) -> str:
    """Where a rank gave up waiting: which rank it is that stands still, which need not be the one it waited for."""
    if launch is None or not isinstance(error, PeerError):
        return ""
    try:
        silent = silent_ranks(Beats.of(launch))
    except RuntimeError:  # without the store nobody can be asked
        return ""
    if not silent:
        return ""
    return f"{_named(silent)} {STOPPED}; rank {launch.rank} noticed: "


def _named(ranks: Sequence[int]) -> str:
    return " and ".join(f"rank {rank}" for rank in ranks)


def _leave_stopped(error: StoppedError, launch: Launch | None) -> NoReturn:
    """Every rank leaves at once, rank 0 says why."""
    if launch is None or launch.rank == 0:
        print(error, file=sys.stderr, flush=True)
    sys.stdout.flush()
    os._exit(error.exit_status)


def _speaks(error: Exception, text: str, launch: Launch) -> bool:
    """Whether this rank's error is the one that people read: the first of the job, but that of a lost peer only after
    the peer had its chance."""
    if isinstance(error, PeerError):
        time.sleep(PEER_SECONDS)
    try:
        return Alarm.of(launch).sound(f"rank {launch.rank} failed: {text}")
    except RuntimeError:  # without the store nobody can be asked
        return True


def _wait_for_the_end(launch: Launch, status: int) -> NoReturn:
    """Another rank speaks; the launcher ends this one when that one has left. Its signal may have come already."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    look, end = end_with_others(launch), time.monotonic() + LEAVE_SECONDS
    while time.monotonic() < end:
        with contextlib.suppress(RuntimeError):  # the store has gone, the launcher is about to end this
            look()
        time.sleep(BEAT_SECONDS)
    os._exit(status)


def _names_a_file(error: BaseException) -> bool:
    """Whether an error is that of a file which can't be read or written, as by its permissions."""
    return isinstance(error, OSError) and error.filename is not None and error.strerror is not None


def sentence(error: BaseException) -> str:
    """An error as one line."""
    if isinstance(error, TrainerError):
        return str(error)
    if isinstance(error, OSError) and _names_a_file(error):
        return f"{error.filename}: {error.strerror}"
    return f"{type(error).__name__}: {error}"
