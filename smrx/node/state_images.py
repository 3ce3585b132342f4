"""Capture state images between two log entries and keep them for the followers that request them.

A state image is the state from which books can start in the middle of the stream. Every node applies the same entries,
so the first entry boundary at or after a command is the same position on all of them: images for the same command are
equal. A node lets a forked child encode one (child_file.py), so that the loop is blocked for the fork only: an image is
not ready at once. Without the child, in the simulator and in tools, capturing one blocks as long as copying all tables
takes. Owned by the replicated state; the admin service passes requests and the time.
"""

import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from numpy.typing import NDArray

from smrx.consensus.large_pages import LargePages
from smrx.node.child_file import ChildFile, Write
from smrx.wire import state_image
from smrx.wire.state_image import StateImage, StreamPosition

if TYPE_CHECKING:
    from smrx.engine import Engine

log = logging.getLogger(__name__)

#: Images kept, and requests waiting, at once: enough for two followers that join together, and for their retries.
_MAX_IMAGES: Final = 2
_MAX_REQUESTS: Final = 8
#: An image that was not requested for this long is dropped.
HELD_SECONDS: Final = 30.0
#: On an idle node the same command may be requested again. After this time its image is captured again, because memory
#: may have been damaged.
FRESH_SECONDS: Final = 0.5
_NEVER: Final = 1 << 64
#: A fork blocks the loop for a moment: the next one waits so long, and so many times as long as the last one blocked.
_CAPTURE_SECONDS: Final = 0.25
_PAUSES: Final = 100
#: Bytes of an image: 16 million orders. A child is killed after so many seconds.
_MAX_BYTES: Final = 4 << 30
_CHILD_SECONDS: Final = 60.0
#: The digest in hex, behind the image in the file of a child.
_DIGEST_BYTES: Final = 32


class HeldImage:
    """An image, or one that a child is encoding; and when it was last requested."""

    def __init__(self, position: StreamPosition, data: bytes | ChildFile) -> None:
        self.position = position
        self.requested_at: float | None = None
        self._file = data if isinstance(data, ChildFile) else None
        self._data = b"" if isinstance(data, ChildFile) else data
        self._digest = ""

    @property
    def pause_s(self) -> float:
        """Seconds that the fork of its child blocked the loop."""
        return 0.0 if self._file is None else self._file.pause_s

    @property
    def is_ready(self) -> bool:
        """Whether the image is complete."""
        return self._file is None or (self._file.poll() and self._file.complete)

    @property
    def has_failed(self) -> bool:
        """Whether the child ended without an image."""
        return self._file is not None and self._file.poll() and not self._file.complete

    @property
    def size(self) -> int:
        """Bytes of the image, without its digest at the end of the child's file."""
        return len(self._data) if self._file is None else self._file.size - _DIGEST_BYTES

    @property
    def digest(self) -> str:
        """The digest of the image."""
        if not self._digest:
            self._digest = (
                state_image.digest(self._data)
                if self._file is None
                else self._file.read(self.size, _DIGEST_BYTES).decode("ascii")
            )
        return self._digest

    @property
    def data(self) -> bytes:
        """The whole image."""
        return self.read(0, self.size)

    def read(self, offset: int, size: int) -> bytes:
        """Return a part of the image."""
        if self._file is None:
            return self._data[offset : offset + size]
        return self._file.read(offset, min(size, max(self.size - offset, 0)))

    def close(self) -> None:
        """Free the image."""
        if self._file is not None:
            self._file.close()


class StateImages:
    """The images held, by the command they were requested for, and the commands still to be reached."""

    def __init__(self) -> None:
        #: Whether a forked child encodes the images; and the large pages of the process, for which that waits.
        self.forks = False
        self.pages: LargePages | None = None
        #: Other arrays of the process, which an image does not read.
        self.outside: Callable[[], list[NDArray[Any]]] = list
        self.next_sequence = _NEVER  #: Call capture() once this command is applied.
        self._requested: list[int] = []
        self._held: dict[int, HeldImage] = {}
        #: The next fork may not be before this time, on time.monotonic().
        self._not_before = 0.0

    def is_delayed(self, sequence: int, engine: "Engine") -> bool:
        """Return whether the image for a command is still possible, and waits because others were captured just now."""
        return engine.sequence == sequence and self._must_wait()

    def request(self, sequence: int, engine: "Engine", now: float) -> HeldImage | None:
        """Return the image for a command, or None if it is not applied yet or no longer the last one applied.

        An image for a later command is captured as soon as that is applied. One that a child encodes is not ready yet.
        """
        self._drop_old(now)
        if engine.sequence < sequence:
            others = (requested for requested in self._requested if requested != sequence)
            self._requested = [*others, sequence][-_MAX_REQUESTS:]
            self.next_sequence = min(self._requested)
        elif engine.sequence == sequence and self._needs_capture(sequence, now):
            self._hold([sequence], engine)
        return self.get(sequence, now)

    def get(self, sequence: int, now: float) -> HeldImage | None:
        """Return the image held for a command, or None."""
        held = self._held.get(sequence)
        if held is not None and held.has_failed:
            self._drop(sequence)
            return None
        if held is not None:
            held.requested_at = now
        return held

    def restart(self) -> None:
        """Drop images and requests: the state was replaced by one that need not be at an entry boundary."""
        self.next_sequence = _NEVER
        self._requested = []
        for sequence in list(self._held):
            self._drop(sequence)

    def capture(self, engine: "Engine") -> None:
        """Capture the image for every requested command that is applied. Call between two entries."""
        reached = [sequence for sequence in self._requested if sequence <= engine.sequence]
        self._requested = [sequence for sequence in self._requested if sequence > engine.sequence]
        self.next_sequence = min(self._requested, default=_NEVER)
        self._hold(reached, engine)

    def _needs_capture(self, sequence: int, now: float) -> bool:
        held = self._held.get(sequence)
        return held is None or (held.requested_at is not None and now - held.requested_at > FRESH_SECONDS)

    def _hold(self, sequences: list[int], engine: "Engine") -> None:
        if not sequences or self._must_wait():
            return
        for sequence in sequences:
            self._drop(sequence)
        try:
            held = capture_image(engine) if not self.forks else self._capture_in_child(engine)
        except OSError as error:
            log.error("state image after command %d: cannot fork a process: %s", engine.sequence, error.strerror)
            return
        self._not_before = time.monotonic() + max(_CAPTURE_SECONDS, _PAUSES * held.pause_s)
        self._held |= dict.fromkeys(sequences, held)
        while len({id(kept) for kept in self._held.values()}) > _MAX_IMAGES:
            self._drop(next(iter(self._held)))

    def _capture_in_child(self, engine: "Engine") -> HeldImage:
        """Let a child encode the image; raises OSError if there can be none."""
        position = _position(engine)

        def produce(write: Write) -> None:
            data = _encoded(position, engine)
            write(data)
            write(state_image.digest(data).encode("ascii"))

        excluded = [*engine.inspect.arrays_outside(*state_image.TABLES), *self.outside()]
        file = ChildFile(produce, excluded, max_bytes=_MAX_BYTES, seconds=_CHILD_SECONDS, pages=self.pages)
        return HeldImage(position, file)

    def _must_wait(self) -> bool:
        now = time.monotonic()
        return self.forks and (now < self._not_before or (self.pages is not None and not self.pages.is_ready(now)))

    def _drop(self, sequence: int) -> None:
        held = self._held.pop(sequence, None)
        if held is not None and held not in self._held.values():
            held.close()

    def _drop_old(self, now: float) -> None:
        for sequence, held in list(self._held.items()):
            held.requested_at = now if held.requested_at is None else held.requested_at
            if now - held.requested_at > HELD_SECONDS:
                self._drop(sequence)


def capture_image(engine: "Engine") -> HeldImage:
    """Capture an image of an engine as it is."""
    position = _position(engine)
    return HeldImage(position, _encoded(position, engine))


def _position(engine: "Engine") -> StreamPosition:
    return StreamPosition(
        event_sequence=engine.event_sequence,
        command_sequence=engine.sequence,
        match_id=engine.trade_count,
        time_ns=engine.time_ns,
        state_hash=engine.state_hash,
    )


def _encoded(position: StreamPosition, engine: "Engine") -> bytes:
    tables = {name: getattr(engine.inspect, name)() for name in state_image.TABLES}
    return state_image.encode(StateImage(position, engine.inspect.killed, tables))
