"""The ledger: the Python interface of the compiled books, with what accounts own and hold, from events alone.

Owns the tables. Takes every event from the first on, or from a checkpoint or state image; raises Violation at the first
event that breaks a rule, and must not be used after that. No sockets, no files, no clock. Implements Projection.
"""

from typing import Any, Final, NamedTuple

import msgspec
import numpy as np
import xxhash
from numpy.typing import NDArray

from smrx.follower.follow_errors import FollowError, Violation
from smrx.follower.record_table import filled, live
from smrx.settlement.books import compiled_books
from smrx.settlement.books.book_tables import ASSET_TEXT, CORE, TYPES, Tables
from smrx.settlement.books.event_rows import ROW
from smrx.settlement.books.posting_faults import Fault, sentence
from smrx.settlement.display_names import unique_names
from smrx.wire import balance_digest as wire_balances
from smrx.wire.codes import EventKind
from smrx.wire.record_schema import SchemaError, decode_tables, encode_tables
from smrx.wire.records import EVENT, EVENT_LAYOUTS, unpack_symbol

_FORMAT: Final = 2
#: Events posted in one call; the tables are grown for so many before it.
_PIECE: Final = 4096
_LOW: Final = 0xFFFF_FFFF
#: The sums over all balances are checked once in so many events, so that the check costs a fraction of an event.
_EVENTS_PER_BALANCE: Final = 10
_MIN_EVENTS_PER_CHECK: Final = 100_000


class Balance(NamedTuple):
    """What an account owns of an asset, and how much of it its open orders hold."""

    account: int
    asset: int
    total: int
    held: int

    @property
    def available(self) -> int:
        """What it may withdraw."""
        return self.total - self.held


class _Saved(msgspec.Struct, array_like=True):
    """The live records of every table, what they add up to, and the schema of both (record_schema.py)."""

    format: int
    schema: bytes
    records: list[bytes]


class Ledger:
    """The balances and open orders that follow from the events."""

    def __init__(self) -> None:
        self._tables: Tables = compiled_books.empty()
        self._numbers = np.zeros(5, np.int64)

    @property
    def sequence(self) -> int:
        """The last event posted."""
        return int(self._tables.core["sequence"][0])

    @property
    def command_sequence(self) -> int:
        """Its command."""
        return int(self._tables.core["command"][0])

    @property
    def trades(self) -> int:
        """Trades posted: match ids 1 to this one."""
        return int(self._tables.core["trades"][0])

    @property
    def accounts(self) -> int:
        """The number of accounts, the venue's included."""
        return int(self._tables.core["accounts"][0])

    @property
    def open_orders(self) -> int:
        """The number of open orders."""
        return int(self._tables.core["orders"][0])

    @property
    def balance_count(self) -> int:
        """The number of balances."""
        return int(self._tables.core["balances"][0])

    @property
    def events_per_check(self) -> int:
        """See Projection: the sums cost as much as some ten events a balance."""
        return max(_MIN_EVENTS_PER_CHECK, _EVENTS_PER_BALANCE * self.balance_count)

    @property
    def is_incomplete(self) -> bool:
        """See Projection: whether the last trade waits for its fills, or an order for the events that belong to it."""
        core = self._tables.core[0]
        return bool(core["due"] or core["following"])

    def post(self, events: NDArray[np.void]) -> None:
        """Post the events that follow the last one; raises Violation at the first that breaks a rule."""
        rows = np.ascontiguousarray(events).view(ROW)
        for start in range(0, len(rows), _PIECE):
            piece = rows[start : start + _PIECE]
            self._tables = compiled_books.with_room(self._tables, len(piece))
            fault = compiled_books.post_rows(self._tables, piece, self._numbers)
            if fault:
                raise self._violation(Fault(fault), piece[int(self._numbers[4])])

    def balances(self) -> list[Balance]:
        """Return every balance, also empty ones, by account and asset."""
        rows = live(self._tables.balances)
        rows = rows[np.argsort(rows["key"].view(np.uint64))]
        return [
            Balance((key & (1 << 64) - 1) >> 32, key & _LOW, total, held)
            for key, total, held in zip(*(rows[name].tolist() for name in ("key", "total", "held")), strict=True)
        ]

    def balance(self, account: int, asset: int) -> Balance:
        """Return one balance; an empty one if there is none."""
        return next((b for b in self._rows(account, asset)), Balance(account, asset, 0, 0))

    def first_touched(self, account: int, asset: int) -> int:
        """Return the first event since the last mark_equal() that changed a balance or its hold; 0 if none did."""
        rows = self._tables.balances
        found = rows[rows["key"] == np.int64((account << 32 | asset) - (1 << 64 if account >> 31 else 0))]
        return int(found["touched"][0]) if len(found) else 0

    def mark_equal(self) -> None:
        """Record that the balances are equal to the cluster's here; first_touched() restarts."""
        self._tables.balances["touched"] = 0

    def balances_digest(self) -> wire_balances.Digest:
        """Return the digest of these balances that nodes publish of theirs."""
        rows = live(self._tables.balances)
        return wire_balances.digest(rows["key"].view(np.uint64), rows["total"] - rows["held"], rows["held"])

    def order_leaves(self) -> dict[int, int]:
        """Return the lots left of each open order, by order id."""
        rows = live(self._tables.orders)
        return dict(sorted(zip(rows["key"].tolist(), rows["leaves"].tolist(), strict=True)))

    def asset_names(self) -> dict[int, str]:
        """Return the symbols of the assets; equal symbols are shown with their id."""
        rows = live(self._tables.assets).view(ASSET_TEXT)
        return unique_names({int(row["key"]): unpack_symbol(row["symbol"]) for row in rows})

    def supply(self) -> dict[str, int]:
        """Return deposits less withdrawals of each asset, by its name."""
        names = self.asset_names()
        rows = live(self._tables.assets)
        return {names[int(row["key"])]: int(row["supply"]) for row in rows[np.argsort(rows["key"])]}

    def check_sums(self) -> None:
        """Check that per asset all accounts own deposits less withdrawals; raises Violation at the last event."""
        rows, assets = live(self._tables.balances), live(self._tables.assets).view(ASSET_TEXT)
        of = rows["key"] & _LOW
        for asset in assets:
            found = sum(rows["total"][of == asset["key"]].tolist())
            if found != int(asset["supply"]):
                raise Violation(
                    self.sequence,
                    f"asset {unpack_symbol(asset['symbol'])}: expected accounts to own {int(asset['supply'])} in "
                    f"all (deposits less withdrawals), found {found}",
                )

    def check_end(self) -> None:
        """Check that no event lacks those that must follow it, so that the stream may end here. Raises Violation."""
        core = self._tables.core[0]
        if core["due"]:
            raise Violation(self.sequence, "found a trade without the fills of maker and taker, and nothing after it")
        if core["following"]:
            raise Violation(
                self.sequence, f"{int(core['following'])} more events must belong to the last order, found none"
            )

    def save(self) -> bytes:
        """Return the books as bytes for load(); equal books give equal bytes."""
        if self.is_incomplete:
            waits = "a trade waits for its fills" if self._tables.core["due"][0] else "an order for events of its own"
            raise FollowError(f"books can only be saved between commands, and {waits}")
        records = {"core": self._tables.core}
        for name in TYPES:
            rows = live(getattr(self._tables, name))
            records[name] = rows[np.argsort(rows["key"])]
        data = msgspec.msgpack.encode(_Saved(_FORMAT, *encode_tables(records)))
        return xxhash.xxh3_64_digest(data) + data

    @classmethod
    def load(cls, data: bytes) -> "Ledger":
        """Return the books that save() of this or another version wrote; raises FollowError for other bytes."""
        if xxhash.xxh3_64_digest(data[8:]) != data[:8]:
            raise FollowError("books: the saved bytes are damaged (digest mismatch)")
        try:
            saved = msgspec.msgpack.decode(data[8:], type=_Saved)
            if saved.format != _FORMAT:
                raise FollowError(f"books: expected format {_FORMAT}, found {saved.format}")
            records = decode_tables(saved.schema, saved.records, {"core": CORE, **TYPES})
        except (msgspec.MsgspecError, SchemaError) as error:
            raise FollowError(f"books: they cannot be read: {error}") from None
        return cls.of(records.pop("core").copy(), records)

    @classmethod
    def of(cls, core: NDArray[np.void], records: dict[str, NDArray[np.void]]) -> "Ledger":
        """Return books with these records of books/book_tables.py, by table, in any order."""
        ledger = cls()
        ledger._tables = ledger._tables._replace(
            core=core, **{name: filled(rows, len(rows), compiled_books.copy_records) for name, rows in records.items()}
        )
        return ledger

    def _rows(self, account: int, asset: int) -> list[Balance]:
        return [b for b in self.balances() if (b.account, b.asset) == (account, asset)]

    def _violation(self, fault: Fault, row: np.void) -> Violation:
        event: dict[str, Any] = {}
        kind = int(row["kind"])
        # The fields of its kind, and those of an order in which no other kind has a field.
        for layout in (EVENT, EVENT_LAYOUTS[EventKind(kind)] if kind in set(EventKind) else EVENT):
            fields = np.frombuffer(row.tobytes(), layout)[0]
            event |= {name: fields[name].item() for name in layout.names or ()}
        numbers = [int(number) for number in self._numbers[:4]]
        # An event out of sequence is reported at the sequence that was expected.
        sequence = self.sequence + 1 if fault is Fault.SEQUENCE else event["sequence"]
        return Violation(sequence, sentence(fault, numbers, event, self.asset_names()))
