"""Define how settled rows are stored in an LMDB environment. Written by lmdb_sink.py, read by lmdb_reader.py.

Rows are kept in blocks, one for each commit, as the bytes of their records; keys are big-endian, so that they sort as
numbers. The indexes are written later, many trades at a time, because single puts at random places cost most of a
commit: trades after `indexed`, of which there are few, are found by a scan.

- trades        first match id of the block -> TRADE_ROWs
- movements, definitions   first event sequence of the block -> MOVEMENT_ROWs, DEFINITION_ROWs
- orders        order id -> match ids (sorted duplicates)
- accounts      account, first match id -> match ids
- meta          "state" -> LmdbState as JSON

A file beside the environment, the marker, records that there is one: without it an environment that was lost or emptied
could not be told from one that is new.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import lmdb
import msgspec
import numpy as np
from numpy.typing import NDArray

from smrx.sinks.contract import Checkpoint
from smrx.sinks.sink_errors import SinkError, SinkMismatch

FORMAT: Final = 2
TABLES: Final = (b"trades", b"movements", b"definitions", b"orders", b"accounts", b"meta")
#: Options of the tables that have some.
OPTIONS: Final[dict[bytes, dict[str, Any]]] = {b"orders": {"dupsort": True, "dupfixed": True}}
STATE: Final = b"state"
#: The files of an environment, and the marker beside them.
DATA_FILE: Final = "data.mdb"
MARKER: Final = "settlement.json"

#: Keys and values of the indexes.
NUMBER: Final = np.dtype(">u8")


class LmdbState(msgspec.Struct, forbid_unknown_fields=True):
    """The content of "state": how far the environment is settled."""

    format: int
    checkpoint: Checkpoint | None
    indexed: int = 0  #: the last match id in the indexes


class LmdbMarker(msgspec.Struct):
    """The content of the marker."""

    format: int
    #: Whether every page in use is inside the file, so that a shorter file was truncated. LMDB alone does not promise
    #: it: pages at the end that were allocated and freed in one transaction are never written.
    is_whole: bool = False


def missing_bytes(environment: Any, path: Path) -> int:
    """Return by how much the file of an environment is shorter than its pages; reads only its first two pages."""
    pages = int(environment.info()["last_pgno"]) + 1
    return max(0, pages * int(environment.stat()["psize"]) - (path / DATA_FILE).stat().st_size)


@contextmanager
def as_lmdb_errors(name: str, content: str) -> Iterator[None]:
    """Raise SinkMismatch or SinkError for any error of LMDB inside; `content` is what the environment holds."""
    try:
        yield
    except (lmdb.InvalidError, lmdb.VersionMismatchError, lmdb.CorruptedError, lmdb.PageNotFoundError) as error:
        raise SinkMismatch(f"{name}: is not an LMDB environment of {content}: {error}") from None
    except lmdb.Error as error:
        raise SinkError(f"{name}: cannot be written: {error}") from None


def write_with_growth(environment: Any, write: Callable[[], bool]) -> None:
    """Call write() until it does not return False because the map is full; double the size of the map each time."""
    while not write():
        # No transaction is open: the size may change.
        environment.set_mapsize(2 * environment.info()["map_size"])


def read_marker(path: Path) -> LmdbMarker | None:
    """Return the marker in a directory, None if there is none; one that is not understood says nothing of the file."""
    try:
        data = (path / MARKER).read_bytes()
    except FileNotFoundError:
        return None
    try:
        return msgspec.json.decode(data, type=LmdbMarker)
    except msgspec.DecodeError:
        return LmdbMarker(FORMAT)


def key(number: int) -> bytes:
    """Return the key of a block or an order."""
    return number.to_bytes(8, "big")


def account_key(account: int, match_id: int) -> bytes:
    """Return the key of a piece of an account's index."""
    return account.to_bytes(4, "big") + match_id.to_bytes(8, "big")


def keys(numbers: NDArray[Any]) -> list[bytes]:
    """Return the keys of many numbers."""
    return numbers.astype(NUMBER).view("V8").tolist()  # type: ignore[no-any-return]
