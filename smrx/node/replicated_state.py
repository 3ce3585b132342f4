"""Apply committed log entries to the engine and keep their newest events.

This is the state machine of Raft. Owns the engine, the event ring (for retransmission) and the digest of the log. The
replica calls it in log order, the same on every node. No I/O, no clock.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

import msgspec
import numpy as np
import xxhash
from numpy.typing import NDArray

from smrx.consensus.context import UnknownRules
from smrx.consensus.large_pages import Growing
from smrx.consensus.messages import RulesVersions
from smrx.engine import FIRST_RULES, Engine, RulesError, SnapshotError
from smrx.node.event_ring import EventRing
from smrx.node.state_images import StateImages
from smrx.wire import batches
from smrx.wire.codes import SessionFlags
from smrx.wire.record_schema import file_pieces, file_records
from smrx.wire.record_words import concatenate_records
from smrx.wire.records import EVENT, STORED_EVENT

_FORMAT: Final = 1
#: The part of a snapshot on this node's own disk that is not in the state: the newest events, so that a verifier finds
#: no gap after all nodes restart. As many as the engine keeps state hashes (8 MiB).
_EVENTS: Final = "events"
_KEPT_RECORDS: Final = 1 << 16
#: msgpack: an array of three; binary data of a length that follows in 4 bytes.
_ARRAY_OF_3: Final = b"\x93"
_BINARY: Final = b"\xc6"

#: The newest entries after which the state hash is cached: the claims of peers refer to these, rarely to older ones.
_RECENT_HASHES: Final = 64

#: Applied entries go into the rings when a ring is read, or when so many events or entries are waiting.
_RING_BATCH_EVENTS: Final = 512
_RING_BATCH_ENTRIES: Final = 64


class Applied(NamedTuple):
    """The result of applying one log entry; the arrays belong to the reader."""

    log_index: int
    term: int
    outcomes: NDArray[np.void]
    events: NDArray[np.void]
    sequence: int
    state_hash: int


class _Saved(msgspec.Struct, array_like=True):
    """The replicated state as bytes: the engine, and what else must agree on all nodes."""

    format: int
    log_digest: int
    engine: memoryview  # a view of the decoded bytes: they are large


class ReplicatedState:
    """The state machine that the replica drives: apply, snapshot, restore, and the hashes for agreement."""

    #: The engine that applies the commands.
    engine_class: type[Engine] = Engine

    def __init__(self, event_ring: int) -> None:
        # A log begins with the first rules; its first leader switches to the newest.
        self.engine = self.engine_class(rules=FIRST_RULES)
        self.log_digest = 0
        self.state_images = StateImages()
        self._events = EventRing(event_ring)
        self.state_images.outside = lambda: self._events.outside(1, 0)
        self._applied: list[Applied] = []
        self._waiting: list[Applied] = []
        self._waiting_events = 0
        self._position = (0, 0)
        self._recent_hashes: dict[int, int] = {}
        self._update_position()
        self._update_rules()

    def _update_position(self) -> None:
        """Cache sequence and state hash: every Raft message needs them, and reading them from the engine is slow."""
        self._position = self.engine.sequence, self.engine.state_hash
        if len(self._recent_hashes) >= _RECENT_HASHES:
            del self._recent_hashes[next(iter(self._recent_hashes))]
        self._recent_hashes[self._position[0]] = self._position[1]

    def _update_rules(self) -> None:
        """Cache the versions of the rules, for the same reason."""
        engine = self.engine
        self._rules = RulesVersions(engine.oldest_rules, engine.newest_rules, engine.rules_version)

    def apply(self, log_index: int, term: int, entry: bytes) -> None:
        """Apply one committed entry; take_applied() returns the result.

        Raises UnknownRules if the entry switched to rules that this program lacks; nothing of it may leave the node.
        """
        batch = batches.decode(entry)
        try:
            outcomes, events, _ = self.engine.apply(batch.commands, batch.time_ns, batch.details)
        except RulesError as error:
            raise UnknownRules(f"log entry {log_index}: {error}") from error
        self._update_position()
        if self.engine.rules_version != self._rules.in_force:
            self._update_rules()
        sequence, state_hash = self._position
        if sequence >= self.state_images.next_sequence:
            self.state_images.capture(self.engine)
        chain = self.log_digest.to_bytes(8, "little") + log_index.to_bytes(8, "little") + term.to_bytes(8, "little")
        self.log_digest = xxhash.xxh3_64_intdigest(chain + xxhash.xxh3_64_digest(entry))
        applied = Applied(log_index, term, outcomes, events, sequence, state_hash)
        self._applied.append(applied)
        self._waiting.append(applied)
        self._waiting_events += len(events)
        if self._waiting_events >= _RING_BATCH_EVENTS or len(self._waiting) >= _RING_BATCH_ENTRIES:
            self._update_rings()

    def take_applied(self) -> list[Applied]:
        """Return the entries applied since the last call, in log order."""
        applied, self._applied = self._applied, []
        return applied

    def _update_rings(self) -> None:
        """Add the waiting entries to the rings, many at once: one at a time costs more than applying them."""
        if not self._waiting:
            return
        entries, self._waiting, self._waiting_events = self._waiting, [], 0
        self._events.append(concatenate_records([entry.events for entry in entries]))

    @property
    def events(self) -> EventRing:
        """The ring of the newest events, up to date."""
        self._update_rings()
        return self._events

    def snapshot(self) -> bytes:
        """Return the whole state as bytes, equal on all nodes that applied the same log."""
        return b"".join(self._state_pieces())

    def snapshot_parts(self) -> Mapping[str, Sequence[bytes | memoryview]]:
        """Return the parts of a snapshot on this node's disk, mostly as views: state, newest events."""
        kept = self.events.range(*self._kept_events())
        return {
            "state": self._state_pieces(),
            _EVENTS: file_pieces(_EVENTS, np.zeros(0, STORED_EVENT) if kept is None else kept.view(STORED_EVENT)),
        }

    def arrays_outside_snapshots(self) -> list[NDArray[Any]]:
        """Return the arrays that snapshot_parts() neither reads nor writes, as long as no entry is applied."""
        return [*self.engine.arrays_outside_snapshot(), *self.events.outside(*self._kept_events())]

    def arrays_outside_listings(self, *tables: str) -> list[NDArray[Any]]:
        """Return the arrays that listings of these tables do not read, the events among them."""
        return [*self.engine.inspect.arrays_outside(*tables), *self._events.outside(1, 0)]

    def growing_memory(self) -> list[Growing]:
        """Return the memory that more records will take."""
        return [Growing(*growing) for growing in self.engine.growing_memory()]

    def _kept_events(self) -> tuple[int, int]:
        """Return the first and the last event that a snapshot keeps."""
        events = self.events
        return max(events.oldest, events.newest - _KEPT_RECORDS + 1), events.newest

    def _state_pieces(self) -> list[bytes | memoryview]:
        """Return the msgpack encoding of a _Saved in pieces, with the engine as views of its memory."""
        engine = self.engine.snapshot_pieces()
        encode = msgspec.msgpack.encode
        size = sum(len(piece) for piece in engine)
        head = _ARRAY_OF_3 + encode(_FORMAT) + encode(self.log_digest) + _BINARY + size.to_bytes(4, "big")
        return [head, *engine]

    def restore(self, data: bytes | memoryview) -> None:
        """Replace the state by the one in `data`; raises ValueError, with nothing changed, if it is invalid.

        Raises UnknownRules if rules are in force there that this program lacks.
        """
        try:
            saved = msgspec.msgpack.decode(data, type=_Saved)
            if saved.format != _FORMAT:
                raise ValueError(f"snapshot: expected format {_FORMAT}, found {saved.format}")
            engine = self.engine_class.restore(saved.engine)
        except RulesError as error:
            raise UnknownRules(f"snapshot: {error}") from error
        except (msgspec.DecodeError, msgspec.ValidationError, SnapshotError) as error:
            raise ValueError(f"snapshot: {error}") from error
        self._update_rings()
        self.engine, self.log_digest = engine, saved.log_digest
        self._recent_hashes.clear()
        self._update_position()
        self._update_rules()
        self.state_images.restart()
        self.events.restart(engine.event_sequence + 1)

    def restore_part(self, name: str, data: memoryview) -> None:
        """Restore another part of a snapshot of this node: the newest events.

        Raises ValueError, with nothing changed, unless they are what this state would keep.
        """
        self._update_rings()
        if name == _EVENTS:
            events = file_records(data, name, STORED_EVENT).view(EVENT)
            last = self.engine.event_sequence
            wrong = np.flatnonzero(events["sequence"] != np.arange(last + 1 - len(events), last + 1))
            if len(wrong):
                raise ValueError(
                    f"{name}: expected event {last + 1 - len(events) + wrong[0]}, found event "
                    f"{events['sequence'][wrong[0]]}; the state ends with event {last}"
                )
            if len(events):
                self._events.restart(int(events["sequence"][0]))
                self._events.append(events)
        else:
            raise ValueError(f"unknown part {name!r}; expected {_EVENTS}")

    def position(self) -> tuple[int, int]:
        """Return (sequence of the last command applied, state hash after it)."""
        return self._position

    def rules(self) -> RulesVersions:
        """Return the versions of the rules that this program can apply, and the one in force."""
        return self._rules

    @property
    def next_expiry_ns(self) -> int | None:
        """When the next order expires, in nanoseconds since 1970; None if no order does."""
        return self.engine.inspect.next_expiry_ns

    def cancel_on_disconnect_sessions(self) -> list[int]:
        """Return the sessions with cancel-on-disconnect."""
        sessions = self.engine.inspect.session_owners()
        asked = (sessions["flags"] & int(SessionFlags.CANCEL_ON_DISCONNECT)) != 0
        found: list[int] = sessions["session_id"][asked].tolist()
        return found

    def orders_ending_with(self, session: int) -> int:
        """Return the number of open orders that end with a session; 0 for an unknown one."""
        return self.engine.inspect.orders_ending_with(session)

    def hash_at(self, sequence: int) -> int | None:
        """Return the state hash after a command, or None if it is no longer kept."""
        known = self._recent_hashes.get(sequence)
        return self.engine.hash_at(sequence) if known is None else known

    def hashes_between(self, first: int, last: int) -> Sequence[int] | None:
        """Return the state hashes after commands first..last, or None if they are not all kept."""
        hashes = self.engine.hashes_between(first, last)
        return None if hashes is None else hashes.tolist()
