"""Move the frames of order entry through rings in shared memory, for clients of the same user on this machine.

Owns a Unix socket in the data directory of the node, which only its user may open, and one pair of rings for each
process that has connected there (smrx/rings). A ring carries frames behind their lengths, as TCP does, without a
greeting. What is in a ring is not trusted: an impossible position, a frame that is too large, unread answers above a
bound, and the end of the process all end the ring and nothing else. Only nodes without keys have rings: a ring has no
proof of a key. Called by the reactor; decides nothing about a frame.
"""

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from smrx.links import bulk_kernels
from smrx.links.poller import Poller
from smrx.node import compiled_entry, link_frames
from smrx.node.frame_block import (
    ROW_WORDS,
    AnswerBlock,
    FrameBlock,
    LinkIdentities,
    Senders,
    link_number,
)
from smrx.node.principal import EVERYTHING
from smrx.rings import ring_end, ring_kernels
from smrx.rings.ring_end import RingEnd
from smrx.rings.ring_memory import RingError
from smrx.wire import frames

log = logging.getLogger(__name__)

#: Numbers of rings are above those of all connections over TCP.
_FIRST_RING: Final = 1 << 48
#: Processes that may have rings; the memory of each is twice the capacity.
MOST_RINGS: Final = 16
_CAPACITY: Final = 1 << 20
_FRAMES_PER_TURN: Final = 4096
#: A process with more unread answers than fit its ring is not read; with more than the second its rings are ended.
_UNREAD_BYTES: Final = 4 << 20


class _Ring:
    """One process."""

    __slots__ = ("end", "held", "identities", "room", "unsent")

    def __init__(self, end: RingEnd, number: int) -> None:
        self.end = end
        self.identities = LinkIdentities(np.full(1, -1, np.int64), np.full(1, number, np.int64))
        #: What was received and not cut yet, and how much.
        self.room: NDArray[np.uint8] = np.empty(_CAPACITY + frames.MAX_FRAME_BYTES, np.uint8)
        self.held = 0
        #: Answers for which the ring has no room.
        self.unsent = bytearray()


def is_ring(identity: bytes) -> bool:
    """Return whether an identity is that of a ring."""
    return (link_number(identity) or 0) >= _FIRST_RING


def are_rings(answers: AnswerBlock) -> bool:
    """Return whether the answers of a block are for rings."""
    identities = answers.identities
    return isinstance(identities, LinkIdentities) and bool(len(identities)) and identities.numbers[0] >= _FIRST_RING


class OrderRings:
    """The rings of a node."""

    def __init__(self, poller: Poller, path: Path, on_frames: Callable[[FrameBlock], None]) -> None:
        """Listen; raises OSError. `on_frames` gets the frames that have arrived; they are valid during the call."""
        self._poller = poller
        self._path = path
        self._on_frames = on_frames
        self._rings: dict[int, _Ring] = {}
        self._number = _FIRST_RING
        self._numbers: NDArray[np.int64] = np.zeros(link_frames.NUMBERS, np.int64)
        self._data: NDArray[np.uint8] = np.empty(_CAPACITY + 2 * frames.MAX_FRAME_BYTES, np.uint8)
        self._rows: NDArray[np.int64] = np.zeros((_FRAMES_PER_TURN, ROW_WORDS), np.int64)
        self._listener = ring_end.listen(path)
        poller.add(self._listener.fileno(), self._accept)

    def _accept(self, events: int) -> None:
        try:
            control, _ = self._listener.accept()
        except OSError:
            return
        if len(self._rings) == MOST_RINGS:
            log.warning("refused a process that asks for a ring: %d processes have one", MOST_RINGS)
            control.close()
            return
        try:
            end = ring_end.offer(control, _CAPACITY)
        except RingError as error:
            log.warning("refused a process that asks for a ring: %s", error)
            control.close()
            return
        self._number += 1
        number = self._number
        self._rings[number] = _Ring(end, number)
        self._poller.add(end.bell, lambda _: end.drain_bell())
        self._poller.add(end.control.fileno(), lambda _: self._note_end(number))

    def _note_end(self, number: int) -> None:
        ring = self._rings.get(number)
        if ring is not None and ring.end.is_other_gone():
            # What it sent before is still accepted.
            self._serve(number, ring)
            self._end(number, None)

    def _end(self, number: int, reason: str | None) -> None:
        ring = self._rings.pop(number, None)
        if ring is None:
            return
        if reason is not None:
            log.warning("ended the ring of a process: %s", reason)
        self._poller.remove(ring.end.bell)
        self._poller.remove(ring.end.control.fileno())
        ring.end.close()

    # What the loop calls.

    @property
    def has_more(self) -> bool:
        """Whether something may be read at once. If not, the other processes ring from now on; ask before each wait."""
        return any(
            not ring.end.may_sleep(until_room=bool(ring.unsent), until_written=not ring.unsent)
            for ring in self._rings.values()
        )

    def deliver(self) -> bool:
        """Hand on the frames that have arrived, and send answers that wait; return whether anything has arrived.

        Call it after the poller has run.
        """
        has_arrived = False
        for number, ring in tuple(self._rings.items()):
            has_arrived |= self._serve(number, ring)
        return has_arrived

    def _serve(self, number: int, ring: _Ring) -> bool:
        try:
            if ring.unsent:
                self._send_unsent(ring)
            return not ring.unsent and self._receive(ring)
        except RingError as error:
            self._end(number, str(error))
            return False

    def _receive(self, ring: _Ring) -> bool:
        received = ring.end.receive(ring.room, ring.held)
        if not received:
            return False
        ring.held += received
        numbers = self._numbers
        spans = np.zeros((1, bulk_kernels.SPAN_WORDS), np.int64)
        spans[0, bulk_kernels.END] = ring.held
        numbers[link_frames.FIRST] = numbers[link_frames.NEXT] = 0
        while ring.held and numbers[link_frames.NEXT] == 0:
            count = compiled_entry.cut_frames(numbers, ring.room, spans, self._data, self._rows, frames.MAX_FRAME_BYTES)
            if count:
                senders = Senders(ring.identities, ring.identities.keys, [EVERYTHING])
                self._on_frames(FrameBlock(self._data, self._rows[:count], senders))
            if numbers[link_frames.TOO_LARGE] >= 0:
                raise RingError(f"it has sent a frame above {frames.MAX_FRAME_BYTES} bytes")
        start = int(spans[0, bulk_kernels.START])
        if start:
            ring.held -= start
            ring.room[: ring.held] = ring.room[start : start + ring.held].copy()
        return True

    # Answers.

    def send(self, identity: bytes, frame: bytes) -> None:
        """Send a reply; what the ring has no room for waits."""
        packed = len(frame).to_bytes(link_frames.LENGTH_BYTES, "little") + frame
        self._send_packed(link_number(identity) or 0, np.frombuffer(bytearray(packed), np.uint8))

    def send_answers(self, answers: AnswerBlock) -> None:
        """Send all answers of a block as send() does."""
        identities = answers.identities
        assert isinstance(identities, LinkIdentities)
        packed = np.empty(len(answers.data) + link_frames.LENGTH_BYTES * len(answers.rows), np.uint8)
        ends = np.empty(len(identities), np.int64)
        compiled_entry.pack_answers(answers.data, answers.rows, packed, ends)
        self._send_packed(int(identities.numbers[0]), packed[: ends[0]])

    def _send_packed(self, number: int, data: NDArray[np.uint8]) -> None:
        ring = self._rings.get(number)
        if ring is None:
            return
        try:
            sent = 0 if ring.unsent else ring.end.send(data)
            ring.unsent += data[sent:].tobytes()
            if len(ring.unsent) > _UNREAD_BYTES:
                raise RingError(f"it left more than {_UNREAD_BYTES >> 20} MiB of answers unread")
        except RingError as error:
            self._end(number, str(error))

    def _send_unsent(self, ring: _Ring) -> None:
        del ring.unsent[: ring.end.send(np.frombuffer(bytes(ring.unsent), np.uint8))]

    def close(self) -> None:
        """Close the listener and every ring."""
        for number in tuple(self._rings):
            self._end(number, None)
        self._poller.remove(self._listener.fileno())
        self._listener.close()
        self._path.unlink(missing_ok=True)


def open_rings(
    poller: Poller, path: Path, on_frames: Callable[[FrameBlock], None], *, has_keys: bool
) -> OrderRings | None:
    """Return the rings of a node; None with keys, without compiled code, or if the socket cannot be opened."""
    if has_keys or not ring_kernels.is_available() or not hasattr(os, "memfd_create"):
        return None
    try:
        return OrderRings(poller, path, on_frames)
    except OSError as error:
        log.warning("%s: no rings in shared memory: %s", path, error.strerror or error)
        return None
