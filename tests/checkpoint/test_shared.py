"""Machines that see different directories under one name are told so."""

from pathlib import Path

import pytest

from trainer.errors import SettingError
from trainer.rundir import RunDirectory


def test_a_directory_that_is_not_shared(tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "there").mkdir()
    here, there = RunDirectory(tmp_path / "here"), RunDirectory(tmp_path / "there")
    token = here.mark()
    here.find_mark(token, seconds=0)
    with pytest.raises(SettingError, match="is not shared: .* does not see what rank 0 writes there; with several "):
        there.find_mark(token, seconds=0)
    there.mark()
    with pytest.raises(SettingError, match="must be on a file system that all of them share"):
        there.find_mark(token, seconds=0)
    here.unmark()
    assert not list(here.path.iterdir())
