"""Cut a byte stream into length-prefixed frames, and queue frames for sending. Sans I/O.

Owns the receive buffer and the send queue of one connection. Never touches a socket: connection.py does, and a test or
a simulation may drive both directly.
"""

from collections import deque
from itertools import islice
from typing import Final, Literal, NamedTuple

#: The first receive buffer of a connection, which is all that an idle one holds.
_FIRST_BYTES: Final = 4 << 10
#: It doubles up to this size whenever a read fills it, and beyond only for a larger frame.
KEPT_BYTES: Final = 128 << 10
#: Buffers given to one sendmsg() call; Linux takes 1,024.
_GATHERED: Final = 64
#: Consecutive small buffers are joined up to this size: a copy costs less than an element of sendmsg().
_JOIN_BYTES: Final = 16 << 10


class FrameTooLarge(ValueError):
    """The peer announces a frame above the bound."""


class Framing(NamedTuple):
    """The length that precedes each frame and does not count itself."""

    length_bytes: int
    byteorder: Literal["little", "big"]


#: Frames between members, and between a node and its clients over TCP.
NATIVE: Final = Framing(4, "little")
#: Packets of SoupBinTCP: the length counts the type and the payload.
SOUP_BIN_TCP: Final = Framing(2, "big")


class ReceiveBuffer:
    """The received bytes of one connection that are not handed out yet."""

    def __init__(self, framing: Framing, max_frame_bytes: int, kept_bytes: int = KEPT_BYTES) -> None:
        """`kept_bytes`: a buffer that grew beyond it for a large frame is given back after the frame."""
        #: The largest frame that is accepted from now on.
        self.max_frame_bytes = max_frame_bytes
        self._kept_bytes = kept_bytes
        self._prefix, self._byteorder = framing
        self._view = memoryview(bytearray(_FIRST_BYTES))
        self._start = self._end = 0

    def space(self) -> memoryview:
        """Return where to receive next, at least one byte. Frames that were handed out before become invalid."""
        view, held = self._view, self._end - self._start
        if not held:
            self._start = self._end = 0
            if len(view) > self._kept_bytes:
                self._view = view = memoryview(bytearray(self._kept_bytes))
            return view
        if held == len(view):
            # The buffer holds the beginning of a larger frame. It grows with what has arrived, not with what is
            # announced.
            self._replace(2 * held)
        elif self._start and len(view) - self._end < len(view) >> 1:
            view[:held] = bytes(view[self._start : self._end])
            self._start, self._end = 0, held
        return self._view[self._end :]

    def received(self, count: int) -> None:
        """Count bytes that were received into space()."""
        self._end += count
        if self._end == len(self._view) < self._kept_bytes:
            self._replace(2 * len(self._view))

    def frames(self, limit: int) -> list[memoryview]:
        """Return up to `limit` complete frames, valid until space() is called; raises FrameTooLarge."""
        found: list[memoryview] = []
        view, prefix, order, most = self._view, self._prefix, self._byteorder, self.max_frame_bytes
        at, end = self._start, self._end
        while end - at >= prefix and len(found) < limit:
            size = int.from_bytes(view[at : at + prefix], order)
            if size > most:
                raise FrameTooLarge(f"expected a frame of at most {most} bytes, found one of {size}")
            first = at + prefix
            if end - first < size:
                break
            at = first + size
            found.append(view[first:at])
        self._start = at
        return found

    @property
    def has_frame(self) -> bool:
        """Whether frames() has something to return, or to raise."""
        held = self._end - self._start - self._prefix
        if held < 0:
            return False
        announced = int.from_bytes(self._view[self._start : self._start + self._prefix], self._byteorder)
        return held >= announced or announced > self.max_frame_bytes

    def held(self) -> memoryview:
        """Return all received bytes, with their prefixes, for a caller that cuts them itself; see consume()."""
        return self._view[self._start : self._end]

    def consume(self, count: int) -> None:
        """Drop bytes from the front of held()."""
        self._start += count

    def _replace(self, size: int) -> None:
        """Continue in a larger buffer; frames in the old one stay valid."""
        held = self._view[self._start : self._end]
        self._view = memoryview(bytearray(size))
        self._view[: len(held)] = held
        self._start, self._end = 0, len(held)


class SendQueue:
    """The frames of one connection that are not sent yet, up to a number of bytes."""

    def __init__(self, framing: Framing, max_bytes: int) -> None:
        self._prefix, self._byteorder = framing
        self._max_bytes = max_bytes
        self._buffers: deque[bytes | memoryview] = deque()
        #: The bytes that wait.
        self.size = 0

    def append(self, *parts: bytes | memoryview) -> bool:
        """Queue one frame, given in parts that are not changed until it is sent; return False if it does not fit.

        An empty queue takes any frame.
        """
        size = sum(map(len, parts))
        if self.size and self.size + size > self._max_bytes:
            return False
        prefix = size.to_bytes(self._prefix, self._byteorder)
        if size < _JOIN_BYTES:
            self._buffers.append(b"".join((prefix, *parts)))
        else:
            self._buffers.append(prefix)
            self._buffers.extend(parts)
        self.size += self._prefix + size
        return True

    def append_packed(self, data: bytes) -> None:
        """Queue bytes that have their lengths already."""
        self._buffers.append(data)
        self.size += len(data)

    def take(self) -> list[bytes | memoryview]:
        """Return the buffers to send next in one call, small ones joined; sent() must follow."""
        buffers = self._buffers
        if len(buffers) > 1 and len(buffers[0]) + len(buffers[1]) <= _JOIN_BYTES:
            joined: list[bytes | memoryview] = []
            size = 0
            while buffers and size + len(buffers[0]) <= _JOIN_BYTES:
                size += len(buffers[0])
                joined.append(buffers.popleft())
            buffers.appendleft(b"".join(joined))
        return list(islice(buffers, _GATHERED))

    def sent(self, count: int) -> None:
        """Drop bytes that were sent from the front."""
        self.size -= count
        buffers = self._buffers
        while count:
            first = buffers[0]
            if count < len(first):
                buffers[0] = memoryview(first)[count:]
                return
            count -= len(first)
            buffers.popleft()
