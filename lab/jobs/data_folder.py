"""The service's data folder: one owner at a time, and files that are whole or not there."""

import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from lab.errors import ConfigError


@contextmanager
def hold_folder(folder: Path) -> Iterator[Path]:
    """Make the folder if there is none, and own it until the end of the block.

    A process that dies, in whatever way, frees it. Raises ConfigError if another process owns
    the folder or it cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / "lock").open("a+b")
    except OSError as error:
        raise ConfigError(f"data folder {folder}: cannot be used ({error.strerror})") from error
    with lock:
        try:
            _lock(lock)
        except OSError as error:
            raise ConfigError(f"data folder {folder}: another service is using it") from error
        yield folder


def _lock(file: IO[bytes]) -> None:
    """Lock the file for this process, or raise OSError; closing it unlocks."""
    if sys.platform == "win32":
        import msvcrt

        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
    else:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def write_whole(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Let `write` fill a file that appears under `path` only when it is whole and on the disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".tmp")
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        _sync_folder(path.parent)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _sync_folder(folder: Path) -> None:
    """Let a new name in a folder survive a power cut; Windows has no such call."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
