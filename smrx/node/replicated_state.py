"""The replicated state machine of one node: the engine, and what the node remembers of what it did.

Owns the engine, the event ring (for retransmission), the outcome ring (to answer a repeated request in full) and the
digest of the log. Called by the replica, in log order, on every node alike. Does no I/O; reads no clock.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

import msgspec
import numpy as np
import xxhash
from numpy.typing import NDArray

from smrx.engine import Engine, SnapshotError
from smrx.node.event_ring import EventRing
from smrx.node.state_images import StateImages
from smrx.wire import batches
from smrx.wire.codes import OutcomeStatus, Reason, SessionFlags
from smrx.wire.record_words import concatenate_records, record_words
from smrx.wire.records import EVENT, OUTCOME

_FORMAT: Final = 1
#: What a snapshot on this node's own disk has beside the state: the newest events, so that a verifier finds no gap
#: after a restart of all nodes, and the newest outcomes, so that a request sent again gets its first answer. As many as
#: there are state hashes kept (8 MiB and 4 MiB).
_EVENTS: Final = "events"
_OUTCOMES: Final = "outcomes"
_KEPT_RECORDS: Final = 1 << 16
#: msgpack: an array of three; binary data of a length that follows in 4 bytes.
_ARRAY_OF_3: Final = b"\x93"
_BINARY: Final = b"\xc6"

#: After so many of the newest entries the state hash is kept at hand: peers speak of these, and seldom of others.
_RECENT: Final = 64

#: What was applied goes into the rings when somebody asks, or when so much has come together.
_REMEMBER_COMMANDS: Final = 256
_REMEMBER_ENTRIES: Final = 64


class Applied(NamedTuple):
    """One log entry as it was applied; the arrays are the reader's own."""

    log_index: int
    term: int
    outcomes: NDArray[np.void]
    events: NDArray[np.void]
    sequence: int
    state_hash: int
    #: Whether some of the outcomes are those of repeated requests.
    repeats: bool


class _Saved(msgspec.Struct, array_like=True):
    """A machine snapshot: the engine and what is not in it but must agree on all nodes."""

    format: int
    log_digest: int
    engine: memoryview  # as it lies in what is decoded: most of it, and not copied


class OutcomeRing:
    """The outcomes of the last `capacity` commands, so that a resent request gets its first answer again."""

    def __init__(self, capacity: int) -> None:
        self._ring = np.zeros(capacity, OUTCOME)
        self._words = record_words(self._ring)

    def append(self, outcomes: NDArray[np.void], last_sequence: int) -> None:
        """Remember the outcomes of applied commands, without gaps up to `last_sequence`."""
        kept = record_words(outcomes[-len(self._ring) :])
        start = (last_sequence + 1 - len(kept)) % len(self._ring)
        head = len(self._ring) - start
        self._words[start : start + len(kept)] = kept[:head]
        if len(kept) > head:
            self._words[: len(kept) - head] = kept[head:]

    def fill(self, outcomes: NDArray[np.void]) -> None:
        """Replace, in place, each DUPLICATE of a request still remembered by its first outcome.

        A duplicate that is no longer remembered, and a resumed session, stay as they are.
        """
        wanted = np.flatnonzero((outcomes["status"] == OutcomeStatus.DUPLICATE) & (outcomes["request_id"] > 0))
        # Repeats come after a failover, a window of one session at a time: one scan of the ring a session is enough.
        for session in np.unique(outcomes["session_id"][wanted]):
            known = self._ring[self._ring["session_id"] == session]
            if not len(known):
                continue
            known = known[np.argsort(known["sequence"])]
            # Only the request's own answer: a REQUEST_GAP refusal carries an id that was sent again later.
            known = known[np.argsort(known["request_id"], kind="stable")]
            rows = wanted[outcomes["session_id"][wanted] == session]
            at = np.searchsorted(known["request_id"], outcomes["request_id"][rows], side="right") - 1
            found = (at >= 0) & (known["request_id"][np.maximum(at, 0)] == outcomes["request_id"][rows])
            outcomes[rows[found]] = known[at[found]]

    def skip(self) -> None:
        """What follows is not what came next: another node's state was taken over, with commands that are not here.

        A refusal that may have consumed nothing is forgotten: the request may have been sent again among these.
        """
        refused = (self._ring["status"] == OutcomeStatus.REJECTED) & (self._ring["reason"] <= Reason.REQUEST_GAP)
        self._ring[refused] = np.zeros(1, OUTCOME)

    def newest(self, last_sequence: int, count: int) -> NDArray[np.void]:
        """The outcomes of the last `count` commands up to `last_sequence`, oldest first, as many as there are."""
        count = min(count, last_sequence, len(self._ring))
        places = np.arange(last_sequence + 1 - count, last_sequence + 1) % len(self._ring)
        kept: NDArray[np.void] = self._ring[places]
        # A node that took over another's state remembers no outcome from before it.
        rows: NDArray[np.void] = kept[kept["sequence"] == np.arange(last_sequence + 1 - count, last_sequence + 1)]
        return rows


class ReplicatedState:
    """What the replica drives: apply, snapshot, restore, and the hashes for agreement."""

    def __init__(self, event_ring: int, outcome_ring: int) -> None:
        self.engine = Engine()
        self.log_digest = 0
        self.state_images = StateImages()
        self._events = EventRing(event_ring)
        self._outcomes = OutcomeRing(outcome_ring)
        self._applied: list[Applied] = []
        self._unremembered: list[Applied] = []
        self._unremembered_commands = 0
        self._position = (0, 0)
        self._recent: dict[int, int] = {}
        self._moved()

    def _moved(self) -> None:
        """Note where the engine stands; reading it out of the engine's record costs more than a message's worth."""
        self._position = self.engine.sequence, self.engine.state_hash
        if len(self._recent) >= _RECENT:
            del self._recent[next(iter(self._recent))]
        self._recent[self._position[0]] = self._position[1]

    def apply(self, log_index: int, term: int, entry: bytes) -> None:
        """Apply one committed entry; the result waits for take_applied()."""
        batch = batches.decode(entry)
        before = self._position[0]
        outcomes, events, _ = self.engine.apply(batch.commands, batch.time_ns)
        self._moved()
        sequence, state_hash = self._position
        if sequence >= self.state_images.next_at:
            self.state_images.take(self.engine)
        chain = self.log_digest.to_bytes(8, "little") + log_index.to_bytes(8, "little") + term.to_bytes(8, "little")
        self.log_digest = xxhash.xxh3_64_intdigest(chain + xxhash.xxh3_64_digest(entry))
        repeats = sequence - before < len(outcomes)
        applied = Applied(log_index, term, outcomes, events, sequence, state_hash, repeats)
        self._applied.append(applied)
        self._unremembered.append(applied)
        self._unremembered_commands += len(outcomes)
        if self._unremembered_commands >= _REMEMBER_COMMANDS or len(self._unremembered) >= _REMEMBER_ENTRIES:
            self.remember()

    def take_applied(self) -> list[Applied]:
        """Return what was applied since the last call, in log order."""
        applied, self._applied = self._applied, []
        return applied

    def remember(self) -> None:
        """Put what was applied into the rings, many entries at once: one by one costs more than applying them."""
        if not self._unremembered:
            return
        entries, self._unremembered, self._unremembered_commands = self._unremembered, [], 0
        self._events.append(concatenate_records([entry.events for entry in entries]))
        outcomes = concatenate_records([entry.outcomes for entry in entries])
        if any(entry.repeats for entry in entries):
            outcomes = outcomes[outcomes["sequence"] > 0]
        self._outcomes.append(outcomes, entries[-1].sequence)

    @property
    def events(self) -> EventRing:
        """The newest events."""
        self.remember()
        return self._events

    def outcomes_with_repeats(self, entry: Applied) -> NDArray[np.void]:
        """The outcomes of an entry, each repeated request with its first outcome as far as that is remembered."""
        if not entry.repeats:
            return entry.outcomes
        self.remember()
        outcomes = entry.outcomes.copy()
        self._outcomes.fill(outcomes)
        return outcomes

    def snapshot(self) -> bytes:
        """The whole state as bytes; equal on nodes that applied the same log."""
        return b"".join(self._state_pieces())

    def snapshot_parts(self) -> Mapping[str, Sequence[bytes | memoryview]]:
        """The whole state, and beside it what this node alone remembers; mostly views of its memory."""
        kept = self.events.range(*self._kept_events())
        outcomes = self._outcomes.newest(self.engine.sequence, _KEPT_RECORDS)
        return {
            "state": self._state_pieces(),
            _EVENTS: [] if kept is None else [kept.tobytes()],
            _OUTCOMES: [outcomes.tobytes()],
        }

    def beside_snapshots(self) -> list[NDArray[Any]]:
        """Arrays that snapshot_parts() neither reads nor writes, as long as nothing else is applied."""
        return [*self.engine.arrays_outside_snapshot(), *self.events.outside(*self._kept_events())]

    def _kept_events(self) -> tuple[int, int]:
        """First and last event of those that a snapshot keeps."""
        events = self.events
        return max(events.oldest, events.newest - _KEPT_RECORDS + 1), events.newest

    def _state_pieces(self) -> list[bytes | memoryview]:
        """A _Saved as msgpack has it, with the engine as it lies in memory."""
        engine = self.engine.snapshot_pieces()
        encode = msgspec.msgpack.encode
        size = sum(len(piece) for piece in engine)
        head = _ARRAY_OF_3 + encode(_FORMAT) + encode(self.log_digest) + _BINARY + size.to_bytes(4, "big")
        return [head, *engine]

    def restore(self, data: bytes | memoryview) -> None:
        """Become the state in `data`; raises ValueError, with nothing changed, if it is not one."""
        try:
            saved = msgspec.msgpack.decode(data, type=_Saved)
            if saved.format != _FORMAT:
                raise ValueError(f"snapshot: expected format {_FORMAT}, found {saved.format}")
            engine = Engine.restore(saved.engine)
        except (msgspec.DecodeError, msgspec.ValidationError, SnapshotError) as error:
            raise ValueError(f"snapshot: {error}") from error
        self.remember()
        self._outcomes.skip()
        self.engine, self.log_digest = engine, saved.log_digest
        self._recent.clear()
        self._moved()
        self.state_images.restart()
        self.events.restart(engine.event_sequence + 1)

    def restore_part(self, name: str, data: memoryview) -> None:
        """Remember again what a snapshot of this node's own has beside the state; raises ValueError."""
        self.remember()
        if name == _EVENTS:
            events = np.frombuffer(data, EVENT)
            if len(events):
                if int(events["sequence"][-1]) != self.engine.event_sequence:
                    raise ValueError(
                        f"events: expected event {self.engine.event_sequence} as the last one, found "
                        f"{int(events['sequence'][-1])}"
                    )
                self._events.restart(int(events["sequence"][0]))
                self._events.append(events)
        elif name == _OUTCOMES:
            outcomes = np.frombuffer(data, OUTCOME)
            if len(outcomes):
                self._outcomes.append(outcomes, self.engine.sequence)
        else:
            raise ValueError(f"expected the parts {_EVENTS} and {_OUTCOMES} beside the state, found {name!r}")

    def position(self) -> tuple[int, int]:
        """(applied command sequence, state hash after it)."""
        return self._position

    @property
    def next_expiry_ns(self) -> int | None:
        """When the next order expires, in nanoseconds since 1970; None if none does."""
        return self.engine.inspect.next_expiry_ns

    def cancel_on_disconnect_sessions(self, *, with_orders: bool = False) -> list[int]:
        """The sessions that asked for cancel-on-disconnect; or those of them that have open orders."""
        sessions = self.engine.inspect.sessions()
        asked = (sessions["flags"] & int(SessionFlags.CANCEL_ON_DISCONNECT)) != 0
        if with_orders:
            asked &= sessions["open_orders"] > 0
        found: list[int] = sessions["session_id"][asked].tolist()
        return found

    def hash_at(self, sequence: int) -> int | None:
        """The state hash after a command, if the ring still holds it."""
        known = self._recent.get(sequence)
        return self.engine.hash_at(sequence) if known is None else known

    def hashes_between(self, first: int, last: int) -> Sequence[int] | None:
        """The hashes after commands first..last, if the ring still holds them all."""
        hashes = self.engine.hashes_between(first, last)
        return None if hashes is None else hashes.tolist()
