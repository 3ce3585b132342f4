"""Encode and decode a batch: one entry of the Raft log, with the commands and the time at which they are applied.

The leader's reactor encodes batches; the replicated state of every node decodes them. No sockets, no clock, no state.

Layout (little-endian, 32-byte header): PySyncObj command type u8 (0 = REGULAR), version u8, reserved u16, count u32,
time_ns i64, the leader's applied command sequence u64, its state hash u64; then `count` 64-byte commands. An entry
without commands is a barrier: once it is applied, so is everything before it.
"""

from collections.abc import Sequence
from struct import Struct
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from smrx.wire.frames import ErrorCode, FrameError
from smrx.wire.records import COMMAND, COMMAND_SIZE

VERSION: Final = 1
HEADER_SIZE: Final = 32
#: 1 MiB minus space for the surrounding message: PySyncObj splits an entry larger than its append-entries limit, and
#: that code path raises and resends.
MAX_ENTRY_BYTES: Final = (1 << 20) - (1 << 12)

_REGULAR: Final = 0
_HEADER: Final = Struct("<BBHIqQQ")


class Batch(NamedTuple):
    """A decoded entry; `commands` is a view of its bytes."""

    time_ns: int
    sequence: int
    state_hash: int
    commands: NDArray[np.void]


def encode(commands: bytes | Sequence[bytes | memoryview], time_ns: int, sequence: int, state_hash: int) -> bytes:
    """Return the entry of the command records, given as one or several buffers.

    Raises ValueError for an incomplete record or more than MAX_ENTRY_BYTES; the caller cuts batches to fit.
    """
    body = commands if isinstance(commands, bytes) else b"".join(commands)
    count, rest = divmod(len(body), COMMAND_SIZE)
    if rest:
        raise ValueError(f"expected whole commands of {COMMAND_SIZE} bytes, found {len(body)} bytes")
    if HEADER_SIZE + len(body) > MAX_ENTRY_BYTES:
        raise ValueError(f"expected an entry of at most {MAX_ENTRY_BYTES} bytes, found {HEADER_SIZE + len(body)}")
    return _HEADER.pack(_REGULAR, VERSION, 0, count, time_ns, sequence, state_hash) + body


def decode(entry: bytes | memoryview) -> Batch:
    """Return the batch in `entry`. Raises FrameError for bytes that encode() does not produce."""
    if len(entry) < HEADER_SIZE:
        raise _bad(f"expected at least {HEADER_SIZE} bytes, found {len(entry)}")
    kind, version, reserved, count, time_ns, sequence, state_hash = _HEADER.unpack_from(entry)
    if kind != _REGULAR:
        raise _bad(f"expected command type {_REGULAR}, found {kind}")
    if version != VERSION:
        raise FrameError(ErrorCode.UNSUPPORTED_VERSION, f"log entry: expected version {VERSION}, found {version}")
    if reserved:
        raise _bad(f"expected reserved bytes to be 0, found {reserved}")
    if len(entry) > MAX_ENTRY_BYTES:
        raise _bad(f"expected at most {MAX_ENTRY_BYTES} bytes, found {len(entry)}")
    if len(entry) != HEADER_SIZE + count * COMMAND_SIZE:
        raise _bad(f"expected {count} commands after the header, found {len(entry) - HEADER_SIZE} bytes")
    commands = np.frombuffer(entry, dtype=COMMAND, count=count, offset=HEADER_SIZE)
    return Batch(time_ns, sequence, state_hash, commands)


def _bad(message: str) -> FrameError:
    return FrameError(ErrorCode.MALFORMED_FRAME, f"log entry: {message}")
