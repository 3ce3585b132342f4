"""Nodes of two versions of the program: the present one, and a next one whose log entries are of the next version.

Owns which version the node at work reads and writes. The next version knows both kinds of entries; what is in them did
not change. As simulated time takes the place of the clock, the reading of the node at work takes the place of the two
functions that know the version of an entry; where every node is of the present version they are left alone.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, Final

from smrx.consensus import messages
from smrx.wire import batches
from smrx.wire.batches import VERSION, Batch

PRESENT: Final = 1
NEXT: Final = 2

_entry_fault: Final[Callable[[bytes], str | None]] = messages.entry_fault
_decode: Final[Callable[[bytes | memoryview], Batch]] = batches.decode
_REGULAR: Final = bytes((messages.REGULAR,))


class Formats:
    """What each version makes of the entries of both: an entry says which version it is of."""

    def write(self, entry: bytes, version: int) -> bytes:
        """What a node of a version puts into its log."""
        return entry if version == PRESENT else _numbered(entry, VERSION + version - PRESENT)

    def read(self, entry: bytes, version: int) -> bytes:
        """An entry as the present version writes it; one that is later than the reader stays what it is."""
        return _numbered(entry, VERSION) if VERSION < entry[1] <= VERSION + version - PRESENT else entry


def _numbered(entry: bytes, number: int) -> bytes:
    return entry[:1] + bytes((number,)) + entry[2:]


class Versions:
    """The versions of one run's nodes."""

    def __init__(self, formats: Formats) -> None:
        self.formats = formats
        self._at_work = PRESENT

    def view(self, version: int) -> None:
        """From now on a node of this version is at work."""
        if version == self._at_work:
            return
        self._at_work = version
        _install(lambda entry: _entry_fault(self._read(entry)), lambda entry: _decode(self._read(bytes(entry))))

    def _read(self, entry: bytes) -> bytes:
        if entry[:1] != _REGULAR or len(entry) < batches.HEADER_SIZE:
            return entry
        return self.formats.read(entry, self._at_work)


def _install(entry_fault: Any, decode: Any) -> None:
    vars(messages)["entry_fault"] = entry_fault
    vars(batches)["decode"] = decode


@contextlib.contextmanager
def several(formats: Formats) -> Iterator[Versions]:
    """Let nodes be of several versions for a while."""
    try:
        yield Versions(formats)
    finally:
        _install(_entry_fault, _decode)
