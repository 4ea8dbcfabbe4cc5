"""The command line in this process: the real entry from the arguments to the exit status."""

import contextlib
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from hydra._internal.hydra import Hydra
from hydra.core.global_hydra import GlobalHydra

import trainer.main

TINY = (
    "engine=sequential", "dataset=synthetic", "dataset.train_size=64", "dataset.test_size=20", "dataset.image_size=8",
    "model.depth=8", "model.width=8", "local_loss=greedy", "partition.points=[stem,layer2.0]", "batch_size=8",
    "epochs=3", "device=cpu", "threads=1", "tracker=none", "log.every_steps=1",
)  # fmt: skip
"""Three epochs of eight steps in a second; the last test batch is short."""

NO_SGD = ("~optimizer.momentum", "~optimizer.weight_decay", "~optimizer.nesterov", "~optimizer.fused")
"""Leaves out the default optimizer's settings, but for its rate."""

LAUNCHER = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


class _ExitError(BaseException):
    pass


@dataclass(frozen=True)
class Outcome:
    """How a command ended."""

    status: int
    out: str
    err: str


def assert_one_sentence(outcome: Outcome, says: str) -> None:
    """One line that is no traceback, and a status that is not 0."""
    assert outcome.status == 2, outcome
    assert outcome.err.startswith("error: "), outcome.err
    assert outcome.err.count("\n") == 1, outcome.err
    assert says in outcome.err


def mode_of_the_flags(*_: object, **__: object) -> None:
    """Takes the place of ``Hydra.get_mode``, which composes all settings once more to find out whether a file asks for
    a sweep. None does here, so that ``--multirun`` decides, as it does where this says nothing."""


class CommandLine:
    """Runs commands; make one a test."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._monkeypatch, self._capsys = monkeypatch, capsys

    def __call__(
        self, *arguments: str, environment: Sequence[tuple[str, str]] = (), cwd: Path | None = None
    ) -> Outcome:
        """``python -m trainer.main`` with ``arguments``."""
        ended: list[Outcome] = []
        own, exit_process = os.getpid(), os._exit

        def leave(code: int) -> None:
            """What ``os._exit`` does, as far as anybody outside can tell: nothing after it counts."""
            if os.getpid() != own:  # a worker process, which would go on with the tests
                exit_process(code)
            if not ended:
                captured = self._capsys.readouterr()
                ended.append(Outcome(code, captured.out, captured.err))
            raise _ExitError

        with self._monkeypatch.context() as patch:
            patch.setattr(sys, "argv", ["trainer.main", *arguments])
            patch.setattr(os, "_exit", leave)
            patch.setattr(Hydra, "get_mode", mode_of_the_flags)
            for name in (*LAUNCHER, "HYDRA_FULL_ERROR"):
                patch.delenv(name, raising=False)
            for name, value in environment:
                patch.setenv(name, value)
            if cwd is not None:
                patch.chdir(cwd)
            GlobalHydra.instance().clear()
            self._capsys.readouterr()
            try:
                trainer.main.main()
            except _ExitError:
                pass
            except SystemExit as error:
                with contextlib.suppress(_ExitError):
                    leave(int(error.code or 0))
        captured = self._capsys.readouterr()
        return ended[0] if ended else Outcome(0, captured.out, captured.err)


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> CommandLine:
    """A ``CommandLine``."""
    return CommandLine(monkeypatch, capsys)
