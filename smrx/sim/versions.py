"""Simulate nodes of two versions of the program: the current one, and a next one with one more version of the rules.

Owns what the next version is, and which version the selected node reads and writes. The next version reads two formats
of log entries and writes the new one once its rules are in force. The functions that check the format of an entry are
replaced while a node of the next version is selected; a run with nodes of the current version only leaves them alone.

The state machine of the next version is NextState, which has no other rules than the current one, or that of another
package: load_next_version(). tests/versions builds one whose records and rules differ.
"""

import contextlib
import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from smrx.consensus import messages
from smrx.engine.kernels.rules_version import NEWEST_RULES
from smrx.node.replicated_state import ReplicatedState
from smrx.sim.small_tables import SmallState, with_small_tables
from smrx.wire import batches
from smrx.wire.batches import VERSION, Batch

CURRENT_VERSION: Final = 1
NEXT_VERSION: Final = 2

_entry_fault: Final[Callable[[bytes], str | None]] = messages.entry_fault
_decode: Final[Callable[[bytes | memoryview], Batch]] = batches.decode
_REGULAR: Final = bytes((messages.REGULAR,))


class NextEngine(SmallState.engine_class):  # type: ignore[name-defined,misc]
    """An engine with one more version of the rules, in which no rule differs."""

    newest_rules = NEWEST_RULES + 1


class NextState(SmallState):  # type: ignore[valid-type,misc]
    """The state machine of the next version, unless a run names another package."""

    engine_class = NextEngine


class VersionError(Exception):
    """A package that is no next version; the message is one sentence for the user."""


def load_next_version(package: str) -> type[ReplicatedState]:
    """Return the state machine of the package in this directory, a copy of smrx under another name."""
    path = Path(package).resolve()
    if not (path / "node" / "replicated_state.py").is_file():
        raise VersionError(f"{package}: expected the directory of a package with node/replicated_state.py")
    if path.name == "smrx" or not path.name.isidentifier():
        raise VersionError(f"{package}: expected a package with another name than smrx, which this program has")
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))
    state: type[ReplicatedState] = importlib.import_module(f"{path.name}.node.replicated_state").ReplicatedState
    if state.engine_class.newest_rules != NEWEST_RULES + 1:
        raise VersionError(
            f"{package}: expected a program whose newest rules are version {NEWEST_RULES + 1}, one more than those of "
            f"this one, found version {state.engine_class.newest_rules}"
        )
    return with_small_tables(state)


class EntryFormats:
    """How each program version writes and reads entries: an entry carries its format."""

    def write(self, entry: bytes, rules: int) -> bytes:
        """Return an entry as a leader writes it under a version of the rules."""
        return entry if rules <= NEWEST_RULES else _with_version(entry, VERSION + 1)

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
