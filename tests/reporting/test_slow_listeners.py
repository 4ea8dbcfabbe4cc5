"""A slow listener holds nobody up, and what it has to say at the end is heard."""

import io
import logging
import threading
import warnings
from pathlib import Path

import torch.distributed as dist

from tests.reporting.test_board import Recorder, facts, part
from trainer.reporting.background import Background
from trainer.reporting.board import Board
from trainer.reporting.console import Console
from trainer.reporting.records import RunFacts
from trainer.reporting.warnings import forwarded_warnings
from trainer.transport.control import Control


class Slow(Recorder):
    """Starts when it is let."""

    def __init__(self) -> None:
        super().__init__()
        self.may_start = threading.Event()

    def start(self, run: RunFacts) -> None:
        assert self.may_start.wait(10)
        super().start(run)

    def close(self, failed: bool) -> None:
        logging.getLogger("tracker").warning("could not\nfinish")
        super().close(failed)


def test_the_others_do_not_wait_and_the_last_warning_is_heard(tmp_path: Path) -> None:
    control = Control(dist.HashStore(), 0, 1)
    slow, quick, stream = Slow(), Recorder(), io.StringIO()
    console = Console(tmp_path / "log", stream)
    with forwarded_warnings(console.warning):
        board = Board(control, [console, quick, Background(slow, lambda failed: 60.0)], facts((0,)))
        control.post(part(10, 0, 1.0))
        control.post({"kind": "end"})
        board.finish()
        assert [kind for kind, _ in quick.seen] == ["start", "step"] and slow.seen == []
        slow.may_start.set()
        board.close(False)
    assert [kind for kind, _ in slow.seen] == ["start", "step", "close"]
    assert stream.getvalue().endswith("warning: could not finish\n")


def test_a_warning_is_said_once() -> None:
    said: list[str] = []
    with forwarded_warnings(said.append):
        for _ in range(3):
            logging.getLogger("x").warning("twice")
            logging.getLogger("x").info("never")
        warnings.warn("from a library", stacklevel=1)
    assert said[0] == "twice" and "from a library" in said[1] and len(said) == 2
