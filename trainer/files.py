"""Files that are there whole or not at all, whatever happens while they are written."""

import contextlib
import os
from pathlib import Path


def write_whole(path: Path, data: bytes) -> None:
    """Write aside, sync, rename: a reader, or the next start after a power cut, sees the old file or the new one.
    Makes missing folders. Raises ``OSError``, which names the file, and then leaves nothing behind."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(path.name + ".tmp")
    try:
        with aside.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            aside.unlink()
        raise OSError(error.errno, error.strerror, str(path)) from error
    _sync(path.parent)


def write_text(path: Path, text: str) -> None:
    """Write a text file whole or not at all."""
    write_whole(path, text.encode())


def _sync(folder: Path) -> None:
    """Make a rename in ``folder`` durable, where the file system can: some refuse to sync a folder, and the file is
    there already."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
