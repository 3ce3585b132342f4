"""Track the position of an open sink in the stream: skip events it holds, refuse a gap, convert the rest to rows.

No files. Called by the sinks.
"""

from smrx.sinks.contract import Checkpoint, describe_origin
from smrx.sinks.rows import Catalogue, Rows, Tables, extract
from smrx.sinks.sink_errors import SinkMismatch


class SinkCursor:
    """The position of one open sink: what it durably holds, and what it was given since then."""

    def __init__(self, name: str, cluster: str, held: Checkpoint | None, definitions: Rows) -> None:
        """Continue after `held`, with the definitions held. Raises SinkMismatch for another cluster's data."""
        if held is not None and held.cluster != cluster:
            raise SinkMismatch(
                f"{name}: expected data of cluster {cluster!r}, found cluster {held.cluster!r}; choose another place"
            )
        self.name = name
        self.cluster = cluster
        self.held = held
        self.sequence = held.event_sequence if held else 0  #: the last event accepted
        self.match_id = held.match_id if held else 0  #: the last trade accepted
        self.catalogue = Catalogue()
        self.catalogue.add(definitions)

    def begin(self, checkpoint: Checkpoint, rows: Tables) -> None:
        """Move to the position of a state image. Raises SinkMismatch if the sink holds something."""
        if self.held is not None:
            raise SinkMismatch(
                f"{self.name}: must be empty to start after event {checkpoint.event_sequence}, and holds events up to "
                f"{self.held.event_sequence}; choose another place"
            )
        self.sequence, self.match_id = checkpoint.event_sequence, checkpoint.match_id
        self.catalogue.add(rows.definitions)

    def take(self, events: Rows) -> Tables | None:
        """Return the rows of the events that are new, None if none is new. Raises SinkMismatch for a gap."""
        if not len(events):
            return None
        first, last = int(events["sequence"][0]), int(events["sequence"][-1])
        if last - first + 1 != len(events):
            raise SinkMismatch(f"{self.name}: expected {len(events)} events in a row, found {first} to {last}")
        if first > self.sequence + 1:
            raise SinkMismatch(f"{self.name}: expected event {self.sequence + 1} or one before it, found {first}")
        events = events[self.sequence + 1 - first :]
        if not len(events):
            return None
        tables = extract(events, self.catalogue)
        if len(tables.trades):
            begin, end = int(tables.trades["match_id"][0]), int(tables.trades["match_id"][-1])
            if (begin, end) != (self.match_id + 1, self.match_id + len(tables.trades)):
                raise SinkMismatch(
                    f"{self.name}: expected trades {self.match_id + 1} to {self.match_id + len(tables.trades)}, found "
                    f"{begin} to {end}"
                )
            self.match_id = end
        self.sequence = last
        return tables

    def due(self, checkpoint: Checkpoint) -> bool:
        """Return whether a checkpoint must be written; False if it is held. Raises SinkMismatch if it contradicts."""
        held = self.held
        if held is not None and held.origin != checkpoint.origin:
            raise SinkMismatch(
                f"{self.name}: expected data of which {describe_origin(checkpoint)}, found that "
                f"{describe_origin(held)}; choose another place"
            )
        if checkpoint.cluster != self.cluster:
            raise SinkMismatch(f"{self.name}: expected cluster {self.cluster!r}, found {checkpoint.cluster!r}")
        if held is not None and checkpoint.event_sequence <= held.event_sequence:
            # A hash of 0 means that it is unknown.
            known = checkpoint.state_hash and held.state_hash
            if checkpoint.event_sequence == held.event_sequence and (
                checkpoint.match_id != held.match_id or (known and checkpoint.state_hash != held.state_hash)
            ):
                raise SinkMismatch(
                    f"{self.name}: holds another history of cluster {self.cluster!r}: at event {held.event_sequence} "
                    f"it has {held.match_id} trades and state {held.state_hash:016x}, the feed {checkpoint.match_id} "
                    f"and {checkpoint.state_hash:016x}"
                )
            return False
        if (checkpoint.event_sequence, checkpoint.match_id) != (self.sequence, self.match_id):
            raise SinkMismatch(
                f"{self.name}: expected a checkpoint at event {self.sequence} and trade {self.match_id}, found event "
                f"{checkpoint.event_sequence} and trade {checkpoint.match_id}"
            )
        return True
