"""Encode and decode a batch: one entry of the Raft log, with the commands and the time at which they are applied.

The leader's reactor encodes batches; the replicated state of every node decodes them. No sockets, no clock, no state.

Layout (little-endian, 32-byte header): PySyncObj command type u8 (0 = REGULAR), version u8, details u16, count u32,
time_ns i64, the leader's applied command sequence u64, its state hash u64; then `count` 64-byte commands and `details`
128-byte details. An entry without commands is a barrier: once it is applied, so is everything before it.
"""

from collections.abc import Sequence
from struct import Struct
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from smrx.wire.command_list import NO_DETAILS
from smrx.wire.frames import ErrorCode, FrameError
from smrx.wire.records import COMMAND, COMMAND_SIZE, DETAILS, DETAILS_SIZE

VERSION: Final = 2
HEADER_SIZE: Final = 32
#: 1 MiB minus space for the surrounding message: PySyncObj splits an entry larger than its append-entries limit, and
#: that code path raises and resends.
MAX_ENTRY_BYTES: Final = (1 << 20) - (1 << 12)

_REGULAR: Final = 0
_HEADER: Final = Struct("<BBHIqQQ")


class Batch(NamedTuple):
    """A decoded entry; `commands` and `details` are views of its bytes."""

    time_ns: int
    sequence: int
    state_hash: int
    commands: NDArray[np.void]
    details: NDArray[np.void]


def encode(
    commands: bytes | Sequence[bytes | memoryview],
    time_ns: int,
    sequence: int,
    state_hash: int,
    details: bytes | memoryview = b"",
) -> bytes:
    """Return the entry of the command records, given as one or several buffers, and of their details.

    Raises ValueError for an incomplete record or more than MAX_ENTRY_BYTES; the caller cuts batches to fit.
    """
    body = commands if isinstance(commands, bytes) else b"".join(commands)
    count, rest = divmod(len(body), COMMAND_SIZE)
    if rest:
        raise ValueError(f"expected whole commands of {COMMAND_SIZE} bytes, found {len(body)} bytes")
    extra, rest = divmod(len(details), DETAILS_SIZE)
    if rest:
        raise ValueError(f"expected whole details of {DETAILS_SIZE} bytes, found {len(details)} bytes")
    size = HEADER_SIZE + len(body) + len(details)
    if size > MAX_ENTRY_BYTES:
        raise ValueError(f"expected an entry of at most {MAX_ENTRY_BYTES} bytes, found {size}")
    return b"".join((_HEADER.pack(_REGULAR, VERSION, extra, count, time_ns, sequence, state_hash), body, details))


def decode(entry: bytes | memoryview) -> Batch:
    """Return the batch in `entry`. Raises FrameError for bytes that encode() does not produce."""
    if len(entry) < HEADER_SIZE:
        raise _bad(f"expected at least {HEADER_SIZE} bytes, found {len(entry)}")
    kind, version, extra, count, time_ns, sequence, state_hash = _HEADER.unpack_from(entry)
    if kind != _REGULAR:
        raise _bad(f"expected command type {_REGULAR}, found {kind}")
    if version != VERSION:
        raise FrameError(ErrorCode.UNSUPPORTED_VERSION, f"log entry: expected version {VERSION}, found {version}")
    if len(entry) > MAX_ENTRY_BYTES:
        raise _bad(f"expected at most {MAX_ENTRY_BYTES} bytes, found {len(entry)}")
    if len(entry) != HEADER_SIZE + count * COMMAND_SIZE + extra * DETAILS_SIZE:
        found = len(entry) - HEADER_SIZE
        raise _bad(f"expected {count} commands and {extra} details after the header, found {found} bytes")
    commands = np.frombuffer(entry, dtype=COMMAND, count=count, offset=HEADER_SIZE)
    if not extra:
        return Batch(time_ns, sequence, state_hash, commands, NO_DETAILS)
    details = np.frombuffer(entry, dtype=DETAILS, count=extra, offset=HEADER_SIZE + count * COMMAND_SIZE)
    return Batch(time_ns, sequence, state_hash, commands, details)


def _bad(message: str) -> FrameError:
    return FrameError(ErrorCode.MALFORMED_FRAME, f"log entry: {message}")
