"""What a run that follows the stream is given: the projection, its factory, the check of positions, a way to ask nodes.

Settlement implements them with the ledger and the comparison of balances.
"""

from collections.abc import Callable
from typing import Protocol, TypeVar

from smrx.sinks.rows import Rows, Tables
from smrx.wire.admin import AnyReply, AnyRequest
from smrx.wire.frames import FeedPosition
from smrx.wire.state_image import StateImage

#: Sends a request to one node's admin socket; returns None when no answer comes in time.
AskNode = Callable[[int, AnyRequest], AnyReply | None]


class Projection(Protocol):
    """State derived from the events of the stream, one after the other."""

    @property
    def sequence(self) -> int:
        """The last event posted."""

    @property
    def command_sequence(self) -> int:
        """The command of the last event posted."""

    @property
    def trades(self) -> int:
        """The match id of the last trade posted."""

    @property
    def is_incomplete(self) -> bool:
        """Whether further events must follow that belong to the last one; there is no checkpoint before them."""

    @property
    def events_per_check(self) -> int:
        """How many events should lie between two calls of check_sums(), so that it costs a fraction of an event."""

    def post(self, events: Rows) -> None:
        """Post the events that follow the last one; raise Violation at the first that breaks the rules."""

    def check_sums(self) -> None:
        """Check the projection as a whole; raise Violation."""

    def check_end(self) -> None:
        """Check that the stream may end here; raise Violation."""

    def save(self) -> bytes:
        """Return the projection as bytes that ProjectionFactory.load() takes."""


P = TypeVar("P", bound=Projection)
P_co = TypeVar("P_co", bound=Projection, covariant=True)


class ProjectionFactory(Protocol[P_co]):
    """Creates projections."""

    def empty(self) -> P_co:
        """Return the projection before event 1."""

    def load(self, data: bytes) -> P_co:
        """Return the projection that save() wrote; raise FollowError if the bytes are damaged."""

    def from_image(self, image: StateImage) -> P_co:
        """Return the projection of a state image; raise Violation if it contradicts itself."""

    def image_rows(self, image: StateImage) -> Tables:
        """Return the rows that sinks store of a state image."""


class PositionCheck(Protocol):
    """Compares the projection with the positions that nodes publish in heartbeats."""

    compared: int  #: positions found equal

    @property
    def is_investigating(self) -> bool:
        """Whether a difference is being investigated; nothing is committed meanwhile."""

    def add(self, node: int, position: FeedPosition) -> None:
        """Record a node's position, to compare it when the projection is there."""

    def stop_events(self, last_event: int) -> list[int]:
        """Return the events up to `last_event` after which check() must be called, in order."""

    def stop_commands(self) -> list[int]:
        """Return the commands after which check() must be called."""

    def check(self) -> None:
        """Compare what can be compared where the projection stands now; raise FollowError."""


class FeedReader(Protocol):
    """Reads the feed while a sink fails."""

    @property
    def behind(self) -> int:
        """The number of events that are announced and not posted."""

    def listen(self, seconds: float) -> None:
        """Receive for so long, posting nothing."""
