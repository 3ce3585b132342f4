"""Define what every sink guarantees, and the checkpoint it durably holds.

The order of calls: open(), then any number of write() and commit(), then close(). After an error only close() and
open() are allowed; RetryingSink (retrying.py) does that, and writes again what was not committed. Implemented by the
sinks, called by settlement.
"""

from typing import Protocol, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from smrx.sinks.rows import Tables
from smrx.sinks.sink_errors import SinkMismatch

T = TypeVar("T")


class Origin(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The state image that books start from instead of event 1, and the nodes that attested it."""

    event_sequence: int  #: the state is that after this event; the next one is the first settled
    command_sequence: int
    match_id: int
    state_hash: int
    digest: str  #: of the state image
    attested_by: tuple[int, ...]  #: the nodes that gave it alike
    members: int  #: of the cluster, of which those are a majority

    def checkpoint(self, cluster: str) -> "Checkpoint":
        """Return the checkpoint of books that hold the state image and nothing more."""
        return Checkpoint(
            cluster, self.event_sequence, self.command_sequence, self.match_id, self.state_hash, origin=self
        )

    def __str__(self) -> str:
        nodes = ", ".join(map(str, self.attested_by))
        return (
            f"books begin after event {self.event_sequence:,} with the state that {len(self.attested_by)} of "
            f"{self.members} nodes ({nodes}) attested, not with event 1"
        )


class Checkpoint(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A place in the stream of events up to which everything is settled."""

    cluster: str
    event_sequence: int  #: the last event
    command_sequence: int  #: its command
    match_id: int  #: the last trade so far; 0 if there was none
    state_hash: int  #: of the cluster after that command; 0 if it is not known
    origin: Origin | None = None  #: the state image the books start from; None for event 1


def describe_origin(held: Checkpoint) -> str:
    """Return where the books of a checkpoint start, for messages."""
    return "books begin with event 1" if held.origin is None else str(held.origin)


class Sink(Protocol):
    """A durable store of trades, movements of money and definitions, each exactly once."""

    #: Kind and place, for messages.
    name: str

    def open(self, cluster: str) -> Checkpoint | None:
        """Return what the sink durably holds, None for nothing yet; what lies beyond it is rolled back.

        Raises SinkError if the place cannot be used now (in use, unreachable), SinkMismatch if it holds another
        cluster's data or a newer format.
        """

    def begin(self, checkpoint: Checkpoint, rows: Tables) -> None:
        """Start from a state image: store its rows; durable with commit(checkpoint), which follows.

        The first event is the one after the checkpoint. Raises SinkError when writing fails, SinkMismatch if the sink
        holds something.
        """

    def write(self, events: NDArray[np.void]) -> None:
        """Store released events (records of EVENT) in order; those the sink holds already are skipped by sequence.

        Not durable before commit(). Raises SinkError when writing fails, SinkMismatch when events are missing between
        what it has and the first one.
        """

    def commit(self, checkpoint: Checkpoint) -> None:
        """Make everything written and the checkpoint durable together: after a crash both are there or neither is.

        The checkpoint names the last event written; an earlier one than the sink holds changes nothing. Raises
        SinkError when that fails, SinkMismatch when the checkpoint contradicts the one held.
        """

    def close(self) -> None:
        """Release the place; what was not committed is lost. Raises nothing; may be called twice."""


class _Versioned(msgspec.Struct):
    format: int


def decode(data: bytes, kind: type[T], expected: int, where: str) -> T:
    """Decode the JSON file that describes a sink's content; its `format` must be the expected one.

    Raises SinkMismatch for another format and for data that is no such file.
    """
    try:
        found = msgspec.json.decode(data, type=_Versioned).format
        if found != expected:
            advice = "use a newer smrx" if found > expected else "an older smrx wrote it: settle again in another place"
            raise SinkMismatch(f"{where}: expected format {expected}, found {found}; {advice}")
        return msgspec.json.decode(data, type=kind)
    except msgspec.DecodeError as error:
        raise SinkMismatch(f"{where}: is not the checkpoint of a sink ({error})") from None
