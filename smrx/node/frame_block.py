"""Hold the frames that arrive in a turn, and the answers to them, as arrays: no Python object for each frame.

The seam between order entry and what moves its bytes. A source of frames (order_socket.py: ZeroMQ; order_links.py:
TCP) makes a FrameBlock of all frames that it received in a turn; order entry gives back AnswerBlocks. Both name a
connection by its place in a list of *senders*, which has every connection of the block once. No I/O. Used by order
entry, its sources, and the simulator.
"""

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple, overload

import numpy as np
import xxhash
from numpy.typing import NDArray

from smrx.node.principal import Principal

#: Columns of FrameBlock.rows. The source sets the first three, order entry the others.
START: Final = 0  #: where the frame begins in the data, a multiple of ALIGNMENT
SIZE: Final = 1  #: its bytes
SENDER: Final = 2  #: the place of its connection in the senders
COUNT: Final = 3  #: the commands in it
CORRELATION: Final = 4
#: The session of its first command.
SESSION: Final = 5
ROW_WORDS: Final = 6
#: Columns of AnswerBlock.rows: the first three.
ANSWER_ROW_WORDS: Final = 3
ALIGNMENT: Final = 8

_DEFAULT_IDENTITY_BYTES: Final = 5
_HASHED: Final = 1 << 62
#: The identity of a connection over TCP: a zero byte, which no ZeroMQ peer may choose, and its number in 8 bytes.
_LINK_IDENTITY_BYTES: Final = 9
_LINK: Final = 1 << 61


class Senders(NamedTuple):
    """The connections of a block."""

    #: What names each to its source.
    identities: Sequence[bytes]
    #: A number for each, the same in every turn, by which its use is counted; see key_of().
    keys: NDArray[np.int64]
    #: Who sends under each connection, None for a key that may not connect any more.
    principals: Sequence[Principal | None]


class FrameBlock(NamedTuple):
    """Frames in the order in which they arrived. The arrays are valid until the source receives again."""

    data: NDArray[np.uint8]
    rows: NDArray[np.int64]
    senders: Senders

    def frame(self, row: int) -> bytes:
        """Return a copy of one frame."""
        start, size = int(self.rows[row, START]), int(self.rows[row, SIZE])
        return self.data[start : start + size].tobytes()


class LinkIdentities(Sequence[bytes]):
    """The identities of connections over TCP, made when they are asked for: most frames are answered without."""

    def __init__(self, descriptors: NDArray[np.int64], numbers: NDArray[np.int64]) -> None:
        """`numbers`: those of the connections, above 0 and never used again."""
        self.descriptors = descriptors
        self.numbers = numbers

    def __len__(self) -> int:
        return len(self.numbers)

    @overload
    def __getitem__(self, place: int) -> bytes: ...

    @overload
    def __getitem__(self, place: slice) -> list[bytes]: ...

    def __getitem__(self, place: int | slice) -> bytes | list[bytes]:
        if isinstance(place, slice):
            return [link_identity(number) for number in self.numbers[place].tolist()]
        return link_identity(int(self.numbers[place]))

    @property
    def keys(self) -> NDArray[np.int64]:
        """The number by which each is counted, as key_of() returns it."""
        found: NDArray[np.int64] = self.numbers | _LINK
        return found


def link_identity(number: int) -> bytes:
    """Return the identity of a connection over TCP."""
    return b"\0" + number.to_bytes(_LINK_IDENTITY_BYTES - 1, "little")


def link_number(identity: bytes) -> int | None:
    """Return the number of a connection over TCP, None for an identity of ZeroMQ."""
    if len(identity) != _LINK_IDENTITY_BYTES or identity[0]:
        return None
    return int.from_bytes(identity[1:], "little")


def key_of(identity: bytes) -> int:
    """Return the number by which the use of a connection is counted.

    Different for all connections over TCP and for those that ZeroMQ names itself: a zero byte and a number of 4 bytes.
    """
    if len(identity) == _DEFAULT_IDENTITY_BYTES and not identity[0]:
        return int.from_bytes(identity[1:], "little")
    number = link_number(identity)
    if number is not None:
        return number | _LINK
    return xxhash.xxh3_64_intdigest(identity) >> 2 | _HASHED


def block_of(frames: Sequence[tuple[bytes, bytes, Principal | None]]) -> FrameBlock:
    """Return the block of some frames, each with the identity of its connection and who sends it."""
    places: dict[tuple[bytes, Principal | None], int] = {}
    rows = np.zeros((len(frames), ROW_WORDS), np.int64)
    pieces: list[bytes] = []
    at = 0
    for row, (identity, data, principal) in enumerate(frames):
        rows[row, :3] = at, len(data), places.setdefault((identity, principal), len(places))
        pieces += (data, bytes(-len(data) % ALIGNMENT))
        at += len(data) + len(pieces[-1])
    joined = np.frombuffer(bytearray(b"".join(pieces)), np.uint8)
    identities = [identity for identity, _ in places]
    keys = np.array([key_of(identity) for identity in identities], np.int64)
    return FrameBlock(joined, rows, Senders(identities, keys, [principal for _, principal in places]))


class AnswerBlock(NamedTuple):
    """OUTCOMES frames for the senders of a block, those of a connection one behind the other."""

    data: NDArray[np.uint8]
    #: Columns START, SIZE and SENDER.
    rows: NDArray[np.int64]
    identities: Sequence[bytes]

    def frames(self) -> Iterator[tuple[bytes, bytes]]:
        """Yield the identity and a copy of each frame."""
        for start, size, sender in self.rows.tolist():
            yield self.identities[sender], self.data[start : start + size].tobytes()
