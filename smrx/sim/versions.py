"""Simulate nodes of two versions of the program: the current one, and a next one with a new version of log entries.

Owns which version the selected node reads and writes. The next version reads both versions of entries; their content
is the same. The two functions that check the version of an entry are replaced while a node of the next version is
selected; a run with nodes of the current version only leaves them alone.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, Final

from smrx.consensus import messages
from smrx.wire import batches
from smrx.wire.batches import VERSION, Batch

CURRENT_VERSION: Final = 1
NEXT_VERSION: Final = 2

_entry_fault: Final[Callable[[bytes], str | None]] = messages.entry_fault
_decode: Final[Callable[[bytes | memoryview], Batch]] = batches.decode
_REGULAR: Final = bytes((messages.REGULAR,))


class EntryFormats:
    """How each program version writes and reads entries: an entry carries its version."""

    def write(self, entry: bytes, version: int) -> bytes:
        """Return an entry as a node of a program version writes it."""
        return entry if version == CURRENT_VERSION else _with_version(entry, VERSION + version - CURRENT_VERSION)

    def read(self, entry: bytes, version: int) -> bytes:
        """Return an entry as the current version writes it; one that is newer than the reader is returned unchanged."""
        return _with_version(entry, VERSION) if VERSION < entry[1] <= VERSION + version - CURRENT_VERSION else entry


def _with_version(entry: bytes, version: int) -> bytes:
    return entry[:1] + bytes((version,)) + entry[2:]


class Versions:
    """Selects the program version of the node that runs."""

    def __init__(self, formats: EntryFormats) -> None:
        self.formats = formats
        self._selected = CURRENT_VERSION

    def select(self, version: int) -> None:
        """Read entries as a node of this version does."""
        if version == self._selected:
            return
        self._selected = version
        _install(lambda entry: _entry_fault(self._read(entry)), lambda entry: _decode(self._read(bytes(entry))))

    def _read(self, entry: bytes) -> bytes:
        if entry[:1] != _REGULAR or len(entry) < batches.HEADER_SIZE:
            return entry
        return self.formats.read(entry, self._selected)


def _install(entry_fault: Any, decode: Any) -> None:
    vars(messages)["entry_fault"] = entry_fault
    vars(batches)["decode"] = decode


@contextlib.contextmanager
def mixed_versions(formats: EntryFormats) -> Iterator[Versions]:
    """Allow nodes of both versions inside the block."""
    try:
        yield Versions(formats)
    finally:
        _install(_entry_fault, _decode)
