"""Define the states of a client's session, the transitions between them, and the actions a session asks for.

Data only. Used by ClientSession and by the clients that drive it.
"""

from enum import Enum, auto
from typing import Final, NamedTuple

from smrx.wire.codes import Reason


class LocalError(Exception):
    """The caller asked for something that the session cannot do now: a bug in the calling program."""


class State(Enum):
    IDLE = auto()  #: not started
    SEEKING = auto()  #: no leader known: pinging every known node
    OPENING = auto()  #: OPEN_SESSION was sent
    ACTIVE = auto()  #: requests are sent as they are submitted
    BACKOFF = auto()  #: the leader is known, but nothing is sent for a moment
    CLOSING = auto()  #: CLOSE_SESSION was sent; no more requests are taken
    CLOSED = auto()
    FAILED = auto()  #: for the reason in `failure`; it stays unknown whether unanswered requests were applied


class Event(Enum):
    START = auto()
    OPEN = auto()  #: a leader was found; the session is not open yet
    RESUME = auto()  #: a leader was found; the session is open
    OPENED = auto()
    LEADER_LOST = auto()
    BACK_OFF = auto()
    CLOSE = auto()
    END = auto()
    FAIL = auto()


#: State -> event -> next state. Any other event is a LocalError.
TRANSITIONS: Final[dict[State, dict[Event, State]]] = {
    State.IDLE: {Event.START: State.SEEKING, Event.END: State.CLOSED},
    State.SEEKING: {
        Event.OPEN: State.OPENING,
        Event.RESUME: State.ACTIVE,
        Event.END: State.CLOSED,
        Event.FAIL: State.FAILED,
    },
    State.OPENING: {
        Event.OPENED: State.ACTIVE,
        Event.LEADER_LOST: State.SEEKING,
        Event.BACK_OFF: State.BACKOFF,
        Event.END: State.CLOSED,
        Event.FAIL: State.FAILED,
    },
    State.ACTIVE: {
        Event.LEADER_LOST: State.SEEKING,
        Event.BACK_OFF: State.BACKOFF,
        Event.CLOSE: State.CLOSING,
        Event.END: State.CLOSED,
        Event.FAIL: State.FAILED,
    },
    State.BACKOFF: {
        Event.OPEN: State.OPENING,
        Event.RESUME: State.ACTIVE,
        Event.LEADER_LOST: State.SEEKING,
        Event.END: State.CLOSED,
        Event.FAIL: State.FAILED,
    },
    # CLOSE_SESSION is sent once. Any error ends the session at the client and leaves it open at the exchange.
    State.CLOSING: {
        Event.LEADER_LOST: State.CLOSED,
        Event.BACK_OFF: State.CLOSED,
        Event.END: State.CLOSED,
        Event.FAIL: State.CLOSED,
    },
    State.CLOSED: {},
    State.FAILED: {Event.END: State.CLOSED},
}


class Send(NamedTuple):
    """Send `data` to the node at `address`. A ping may be skipped while earlier messages are queued for the node."""

    address: str
    data: bytes
    ping: bool = False


class DropConnection(NamedTuple):
    """Close the connection to `address`: drop the messages queued for it, and those that may still arrive."""

    address: str


Action = Send | DropConnection


class Failure(NamedTuple):
    """Why the session failed. `reason` is set if the exchange rejected the session itself."""

    message: str
    reason: Reason | None = None
