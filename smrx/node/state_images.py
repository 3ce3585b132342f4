"""Capture state images between two log entries and keep them for the followers that request them.

A state image is the state from which books can start in the middle of the stream. Every node applies the same entries,
so the first entry boundary at or after a command is the same position on all of them: images for the same command are
equal. Capturing one stops the loop about as long as a page of all orders does. Owned by the replicated state; the admin
service passes requests and the time.
"""

from typing import TYPE_CHECKING, Final

from smrx.wire import state_image
from smrx.wire.state_image import StateImage, StreamPosition

if TYPE_CHECKING:
    from smrx.engine import Engine

#: Images kept, and requests waiting, at once: enough for two followers that join together, and for their retries.
_MAX_IMAGES: Final = 2
_MAX_REQUESTS: Final = 8
#: An image that was not requested for this long is dropped.
HELD_SECONDS: Final = 30.0
#: On an idle node the same command may be requested again. After this time its image is captured again, because memory
#: may have been damaged.
FRESH_SECONDS: Final = 0.5
_NEVER: Final = 1 << 64


class HeldImage:
    """An image, and when it was last requested."""

    def __init__(self, position: StreamPosition, data: bytes) -> None:
        self.position = position
        self.data = data
        self.digest = state_image.digest(data)
        self.requested_at: float | None = None


class StateImages:
    """The images held, by the command they were requested for, and the commands still to be reached."""

    def __init__(self) -> None:
        self.next_sequence = _NEVER  #: Call capture() once this command is applied.
        self._requested: list[int] = []
        self._held: dict[int, HeldImage] = {}

    def request(self, sequence: int, engine: "Engine", now: float) -> HeldImage | None:
        """Return the image for a command, or None if it is not applied yet or no longer the last one applied.

        An image for a later command is captured as soon as that is applied.
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
        if held is not None:
            held.requested_at = now
        return held

    def restart(self) -> None:
        """Drop images and requests: the state was replaced by one that need not be at an entry boundary."""
        self.next_sequence = _NEVER
        self._requested, self._held = [], {}

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
        held = capture_image(engine)
        self._held |= dict.fromkeys(sequences, held)
        while len({id(kept) for kept in self._held.values()}) > _MAX_IMAGES:
            del self._held[next(iter(self._held))]

    def _drop_old(self, now: float) -> None:
        for sequence, held in list(self._held.items()):
            held.requested_at = now if held.requested_at is None else held.requested_at
            if now - held.requested_at > HELD_SECONDS:
                del self._held[sequence]


def capture_image(engine: "Engine") -> HeldImage:
    """Capture an image of an engine as it is."""
    inspect = engine.inspect
    position = StreamPosition(
        event_sequence=engine.event_sequence,
        command_sequence=engine.sequence,
        match_id=engine.trade_count,
        time_ns=engine.time_ns,
        state_hash=engine.state_hash,
    )
    tables = {name: getattr(inspect, name)() for name in state_image.TABLES}
    return HeldImage(position, state_image.encode(StateImage(position, inspect.killed, tables)))
