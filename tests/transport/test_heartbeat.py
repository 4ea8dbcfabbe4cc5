"""The thread that shows that a rank is alive."""

import threading

from torch.distributed import HashStore

from trainer.transport.control import Control
from trainer.transport.heartbeat import heartbeat


def test_no_beat_outlives_the_job() -> None:
    # A thread that is in the store while the interpreter ends makes the process abort.
    looking, finish = threading.Event(), threading.Event()

    def look() -> None:
        looking.set()
        finish.wait(10)

    with heartbeat(Control(HashStore(), 0, 2), look):
        assert looking.wait(10)
        threading.Timer(0.2, finish.set).start()
    assert "heartbeat" not in {thread.name for thread in threading.enumerate()}
