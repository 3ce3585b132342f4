"""Write files so that a crash leaves the old content or the new, never a mixture.

Relies on two rules of POSIX file systems: a rename within a directory is atomic, and it is durable once the directory
is synced. Called by the sinks that keep files. Only the lock outlasts a call.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from smrx.sinks.sink_errors import SinkError


@contextmanager
def as_sink_errors(place: Path) -> Iterator[None]:
    """Raise a SinkError that names the place for any OSError inside."""
    try:
        yield
    except OSError as error:
        where = error.filename or place
        raise SinkError(f"{where}: cannot be written: {error.strerror or error}") from None


def write_all(file: int, data: Any) -> None:
    """Write all bytes of a buffer at the file's position; after an OSError any part of them may be written."""
    rest = memoryview(data).cast("B")
    while rest:
        rest = rest[os.write(file, rest) :]


def read_all(file: int, start: int, size: int) -> bytes:
    """Read up to `size` bytes from `start`; fewer at the end of the file."""
    pieces = []
    while size and (piece := os.pread(file, min(size, 1 << 24), start)):
        pieces.append(piece)
        start, size = start + len(piece), size - len(piece)
    return b"".join(pieces)


def sync_directory(path: Path) -> None:
    """Make the creation, renaming and removal of files in a directory durable."""
    directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def make_directory(path: Path) -> None:
    """Create a directory, and its parents, durably."""
    missing = [place for place in (path, *path.parents) if not place.exists()]
    path.mkdir(parents=True, exist_ok=True)
    for place in missing:
        sync_directory(place.parent)


def replace(path: Path, data: bytes) -> None:
    """Replace the content of a file, or create it, atomically and durably."""
    beside = path.with_name(path.name + ".new")
    file = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    try:
        write_all(file, data)
        os.fsync(file)
    finally:
        os.close(file)
    os.replace(beside, path)
    sync_directory(path.parent)


def lock(path: Path, name: str) -> int:
    """Return an open, locked file; closing it unlocks it. Raises SinkError if another process holds the lock."""
    file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(file)
        raise SinkError(f"{name}: in use by another process; stop that one or choose another place") from None
    return file
