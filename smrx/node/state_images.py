"""State images held for those who begin their books in the middle: taken between two log entries, and kept a while.

Every node applies the same entries, so the first boundary at which a command is applied is the same place on all of
them: asked for the same command, they give the same image. Building one stops the loop about as long as a page of all
orders would. Owned by the state machine; the admin service asks, and says what time it is.
"""

from typing import TYPE_CHECKING, Final

from smrx.wire import state_image
from smrx.wire.state_image import StateImage, StreamPosition

if TYPE_CHECKING:
    from smrx.engine import Engine

#: Images kept at once, and commands waited for: two who join at the same time, and their repeated tries.
_MOST_HELD: Final = 2
_MOST_ASKED: Final = 8
#: An image nobody asked for so long is let go of.
HELD_SECONDS: Final = 30.0
#: On a quiet node the present may be asked for again later: then it is looked at again, as memory may be damaged.
FRESH_SECONDS: Final = 0.5
_NEVER: Final = 1 << 64


class HeldImage:
    """One image, and the time it was last asked for."""

    def __init__(self, position: StreamPosition, data: bytes) -> None:
        self.position = position
        self.data = data
        self.digest = state_image.digest(data)
        self.asked_at: float | None = None


class StateImages:
    """What was asked for and what is held."""

    def __init__(self) -> None:
        self.next_at = _NEVER  #: take() has something to do once this command is applied
        self._asked: list[int] = []
        self._held: dict[int, HeldImage] = {}

    def ask(self, at: int, engine: "Engine", now: float) -> HeldImage | None:
        """Return the image for a command, or take it as soon as that is applied. None: not yet, or never any more."""
        self._forget(now)
        if engine.sequence < at:
            self._asked = [*(asked for asked in self._asked if asked != at), at][-_MOST_ASKED:]
            self.next_at = min(self._asked)
        elif engine.sequence == at and self._is_old(at, now):
            self._hold([at], engine)
        return self.held(at, now)

    def held(self, at: int, now: float) -> HeldImage | None:
        """The image held for a command."""
        held = self._held.get(at)
        if held is not None:
            held.asked_at = now
        return held

    def restart(self) -> None:
        """Forget everything: the state became another one, at a place that need not be the first after a command."""
        self.next_at = _NEVER
        self._asked, self._held = [], {}

    def take(self, engine: "Engine") -> None:
        """Take the images that were asked for up to the command applied last; the loop stands between two entries."""
        reached = [at for at in self._asked if at <= engine.sequence]
        self._asked = [at for at in self._asked if at > engine.sequence]
        self.next_at = min(self._asked, default=_NEVER)
        self._hold(reached, engine)

    def _is_old(self, at: int, now: float) -> bool:
        """Whether an image of the present is to be taken (anew)."""
        held = self._held.get(at)
        return held is None or (held.asked_at is not None and now - held.asked_at > FRESH_SECONDS)

    def _hold(self, commands: list[int], engine: "Engine") -> None:
        held = image(engine)
        self._held |= dict.fromkeys(commands, held)
        while len({id(kept) for kept in self._held.values()}) > _MOST_HELD:
            del self._held[next(iter(self._held))]

    def _forget(self, now: float) -> None:
        for at, held in list(self._held.items()):
            held.asked_at = now if held.asked_at is None else held.asked_at
            if now - held.asked_at > HELD_SECONDS:
                del self._held[at]


def image(engine: "Engine") -> HeldImage:
    """Take an image of an engine as it stands."""
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
