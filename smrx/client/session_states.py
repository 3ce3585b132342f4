"""The states of a client's session, the table of what may follow what, and what a session asks its owner to do.

Data only. Read by the session state machine and by the clients that drive it.
"""

from enum import Enum, auto
from typing import Final, NamedTuple

from smrx.wire.codes import Reason


class LocalError(Exception):
    """The caller asked for what the session cannot do now: a mistake in the program that uses it."""


class State(Enum):
    IDLE = auto()  #: not started
    SEEKING = auto()  #: nobody to talk to: asking every known node who leads
    OPENING = auto()  #: OPEN_SESSION is on its way
    ACTIVE = auto()  #: requests flow
    BACKOFF = auto()  #: the leader is known and wants to be left alone for a moment
    CLOSING = auto()  #: CLOSE_SESSION is on its way; no more requests
    CLOSED = auto()
    FAILED = auto()  #: `failure` says why; unanswered requests stay unknown


class Event(Enum):
    START = auto()
    OPEN = auto()  #: a leader to talk to, and the session is not open yet
    RESUME = auto()  #: a leader to talk to, and the session is open
    OPENED = auto()
    LEADER_LOST = auto()
    BACK_OFF = auto()
    CLOSE = auto()
    END = auto()
    FAIL = auto()


#: (state, event) -> state. What is not here cannot happen.
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
    # A close is tried once: what goes wrong here ends the session on this side and leaves it open on the other.
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
    """Send `data` to the node at `address`; a ping may be left out where an earlier message still waits to leave."""

    address: str
    data: bytes
    ping: bool = False


class DropConnection(NamedTuple):
    """Forget what still waits to leave for `address`, and what may still come from there."""

    address: str


Action = Send | DropConnection


class Failure(NamedTuple):
    """Why the session cannot go on. `reason` is the exchange's, where it refused the session itself."""

    message: str
    reason: Reason | None = None
