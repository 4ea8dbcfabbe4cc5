"""Whether all machines of a run see one run directory, which they must to go on from its checkpoints."""

import platform
import time
import uuid
from pathlib import Path

from trainer.errors import SettingError
from trainer.files import write_text
from trainer.transport.control import Control

LOOK_SECONDS = 10.0
"""Network file systems show new files late."""


def require_shared(directory: Path, control: Control, seconds: float = LOOK_SECONDS) -> None:
    """On every rank: rank 0 leaves a mark in ``directory``, the others look for it for so many seconds.

    Raises:
        SettingError: on every rank, where one does not see the mark.
    """
    mark = directory / ".shared"

    def leave() -> str:
        token = uuid.uuid4().hex
        write_text(mark, token)
        return token

    sees = _finds(mark, control.agree("mark", leave), seconds)
    found = control.share("mark", None if sees else platform.node())
    if control.rank == 0:
        mark.unlink(missing_ok=True)
    if blind := sorted({name for name in found if name is not None}):
        raise SettingError(
            f"output_dir={directory} is not shared: what rank 0 writes there is not seen on {', '.join(blind)}; with "
            f"several machines it must be on a file system that all of them share"
        )


def _finds(mark: Path, token: str, seconds: float) -> bool:
    end = time.monotonic() + seconds
    while not (mark.is_file() and mark.read_text() == token):
        if time.monotonic() > end:
            return False
        time.sleep(0.1)
    return True
