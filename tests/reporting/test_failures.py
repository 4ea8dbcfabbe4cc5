"""What fails beside the training: what people are told of it is a warning, what checkpoints need ends the run."""

import io
import json
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from tests.command_line import TINY, CommandLine
from tests.reporting.test_board import Recorder, facts, part
from trainer.clock import Clock
from trainer.errors import PeerError
from trainer.reporting.background import Background
from trainer.reporting.board import Board
from trainer.reporting.measure import Measure
from trainer.reporting.records import Record, RunFacts
from trainer.reporting.reporter import Reporter
from trainer.reporting.warnings import forwarded_warnings
from trainer.tracking.none import NoTracker
from trainer.transport.control import Control


class Clumsy(Recorder):
    """Fails at the start and at every step."""

    def start(self, run: RunFacts) -> None:
        raise ValueError("no start")

    def step(self, record: Record) -> None:
        raise KeyError("loss")


class Odd(NoTracker):
    """What it wants kept does not fit into a manifest."""

    def identity(self) -> dict[str, Any]:
        return {"handle": object()}


def tell(board: Board, control: Control) -> None:
    for step in (10, 20):
        control.post(part(step, 0, 1.0))
    control.post({"kind": "end"})
    board.finish()
    board.close(False)


def test_a_listener_that_fails_is_said_once_and_the_others_go_on() -> None:
    control, clumsy, other = Control(dist.HashStore(), 0, 1), Clumsy(), Recorder()
    tell(Board(control, [clumsy, other], facts((0,))), control)
    assert [kind for kind, _ in other.seen] == ["warning", "start", "step", "step", "close"]
    assert other.seen[0][1] == "Clumsy failed: ValueError: no start; training goes on"
    assert [kind for kind, _ in clumsy.seen] == ["warning", "close"]


def test_so_is_one_in_the_background() -> None:
    control, clumsy, said = Control(dist.HashStore(), 0, 1), Clumsy(), list[str]()
    with forwarded_warnings(said.append):
        tell(Board(control, [Background(clumsy, lambda failed: 5.0)], facts((0,))), control)
    assert said == ["Clumsy failed: ValueError: no start; training goes on"]
    assert [kind for kind, _ in clumsy.seen] == ["close"]


def failed(reporter: Reporter) -> Exception:
    """What the next training step raises."""
    measure, end = Measure([], Clock(torch.device("cpu")), reporter, 100, 0), time.monotonic() + 10
    for step in range(1, 100):  # none of which is reported
        try:
            measure.step(step, 1)
        except Exception as error:
            return error
        assert time.monotonic() < end
        time.sleep(0.1)
    raise AssertionError


def test_training_stops_with_the_reporter() -> None:
    reporter = Reporter(Control(dist.HashStore(), 0, 1))
    reporter.post(lambda: {"kind": 1 / 0})
    assert isinstance(failed(reporter), ZeroDivisionError)


def test_a_rank_that_has_lost_rank_0_has_lost_a_peer() -> None:
    server = dist.TCPStore("localhost", 0, is_master=True, wait_for_workers=False)
    reporter = Reporter(Control(dist.TCPStore("localhost", server.port, is_master=False), 1, 2))
    del server
    for _ in range(3):  # the first may leave without an error
        reporter.warn("anybody there?")
        time.sleep(0.1)
    error = failed(reporter)
    assert isinstance(error, PeerError) and "what the ranks tell each other, has gone: " in str(error)


def test_training_stops_where_no_checkpoint_can_become_whole(command: CommandLine, tmp_path: Path) -> None:
    outcome = command(*TINY, "epochs=40", f"tracker._target_={__name__}.Odd", f"output_dir={tmp_path}")
    assert outcome.status == 1
    assert outcome.err.startswith("error: TypeError: Object of type object is not JSON serializable\n")
    steps = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert max(record["step"] for record in steps) < 100


def test_letters_that_the_terminal_has_not(
    command: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(shown, encoding="ascii"))
    (tmp_path / "läufe").mkdir()
    assert command(*TINY, "max_steps=2", cwd=tmp_path / "läufe").status == 0
    (log,) = (tmp_path / "läufe").rglob("console.log")
    assert rb"/l\xe4ufe/outputs/" in shown.getvalue() and "/läufe/outputs/" in log.read_text()
