"""Machines that see different directories under one name are told so."""

from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest
import torch.distributed as dist

from trainer.errors import SettingError
from trainer.shared import require_shared
from trainer.transport.control import Control


def looks(*directories: Path) -> list[Future[None]]:
    """A rank for each directory."""
    store = dist.HashStore()
    controls = [Control(store.clone(), rank, len(directories)) for rank in range(len(directories))]
    with ThreadPoolExecutor(len(directories)) as pool:
        return [
            pool.submit(require_shared, path, control, 0.3)
            for path, control in zip(directories, controls, strict=True)
        ]


def test_a_directory_that_is_not_shared(tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    there.mkdir()
    (there / ".shared").write_text("that of another run")
    assert [look.result() for look in looks(here, here)] == [None, None]
    for look in looks(here, here, there):
        with pytest.raises(SettingError, match="is not shared: what rank 0 writes there is not seen on"):
            look.result()
    assert not list(here.iterdir())
