"""`smrx settle verify`: derive everything again, from the rows of the sinks or the events of the nodes, and compare.

Comparison with the log of a node is in log_audit.py.

From the sinks: match ids without a gap, notional and fees of each trade by its instrument's rules at the time, and the
balances that deposits, withdrawals and trades add up to, against the books of the checkpoint. From the nodes: every
event from the first on through new books; each stored trade, and the books of the checkpoint, against those. Books
that start from a state image are derived from the image they keep, and the events after it.

Reads only. Raises Violation, BalanceDifference, SinkMismatch, and what following the feed raises.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from smrx.config import Config
from smrx.follower.alarms import Alarms
from smrx.follower.checkpoint_store import FILE_NAME, CheckpointStore
from smrx.follower.follow_errors import Violation
from smrx.settlement.ledger import Ledger
from smrx.settlement.ledger_factory import LedgerFactory
from smrx.settlement.readers import Reader, open_readers
from smrx.settlement.settlement_errors import BalanceDifference
from smrx.settlement.settlement_run import make_runner, make_settler
from smrx.sinks.contract import Checkpoint, Origin, describe_origin
from smrx.sinks.rows import (
    OPENING,
    TRADE_ROW,
    Catalogue,
    Rows,
    Tables,
    extract,
)
from smrx.sinks.sink_errors import SinkMismatch
from smrx.wire.codes import EventKind, Side

_MILLION: Final = 1_000_000


class Stored(NamedTuple):
    """The stored books, their checkpoint, and the state image if they start from one."""

    books: Ledger
    checkpoint: Checkpoint
    image: bytes | None


class Verified(msgspec.Struct, kw_only=True):
    """What was derived and is equal to what is stored."""

    source: str  #: "sinks", "nodes" or "log"
    sinks: list[str]
    sequence: int  #: the event the books stand at
    trades: int  #: in each sink
    movements: int
    balances: int
    origin: Origin | None = None  #: the state image the books start from; None for event 1
    log: str | None = None  #: the log that was compared
    first_trade: int | None = None  #: compared with the log: from this one on; None if there was none to compare

    def lines(self) -> list[str]:
        """Return the result as lines of text."""
        where = {"sinks": "what is stored", "nodes": "the nodes' events"}.get(self.source, f"the {self.log}")
        begin = 0 if self.origin is None else self.origin.event_sequence
        first = f"from event {begin + 1:,} " if begin else ""
        what = f"everything {first}up to event {self.sequence:,} from {where}"
        lines = [
            f"derived    {what}" if self.sequence > begin else f"derived    nothing: no event came after {begin:,}",
            f"trades     {self.trades:,}, match ids without a gap, notional and fees by the rules: "
            f"{', '.join(self.sinks)}",
            f"balances   {self.balances:,}, equal to the books",
        ]
        if self.log is not None:
            last = self.trades + (self.origin.match_id if self.origin else 0)
            which = "no trade" if self.first_trade is None else f"trades {self.first_trade:,} to {last:,}"
            lines.insert(
                1, f"compared   {which}, and movements and definitions from there on, with the log's, one by one"
            )
        return lines if self.origin is None else [*lines, f"begins     {self.origin}: what was before is not verified"]


def from_sinks(config: Config) -> Verified:
    """Derive balances from every sink's rows and compare them with the books of the checkpoint."""
    books, checkpoint, _ = stored_books(config)
    found = Verified(
        source="sinks", sinks=[], sequence=books.sequence, trades=0, movements=0, balances=0, origin=checkpoint.origin
    )
    for name, reader in open_readers(config):
        try:
            _derive(name, reader, books, found)
        finally:
            reader.close()
        found.sinks.append(name)
    return found


def from_nodes(
    config: Config,
    *,
    stop: Callable[[], bool],
    node_ids: Sequence[int] | None = None,
    until_sequence: int | None = None,
    idle_seconds: float | None = None,
    connect_seconds: float = 10.0,
) -> Verified:
    """Derive everything from the nodes' events and compare it with every sink's trades and the books."""
    books, checkpoint, image = stored_books(config)
    origin = checkpoint.origin
    last = min(until_sequence or books.sequence, books.sequence)
    readers = open_readers(config)
    against = [_AgainstReader(name, reader) for name, reader in readers]
    settler = make_settler(config.cluster, None, against)
    if origin is not None and image is not None:
        settler.join(image, origin)
    runner = make_runner(config, settler, Alarms(config.cluster), node_ids=node_ids)
    try:
        runner.run(stop=stop, until_sequence=last, idle_seconds=idle_seconds, connect_seconds=connect_seconds)
    finally:
        runner.close()
        for _, reader in readers:
            reader.close()
    ledger = settler.projection
    if ledger.sequence == books.sequence:
        compare_books(ledger, books, "the nodes' events give")
    return Verified(
        source="nodes",
        sinks=[name for name, _ in readers],
        sequence=ledger.sequence,
        trades=ledger.trades - (origin.match_id if origin else 0),
        movements=against[0].movements if against else 0,
        balances=ledger.balance_count,
        origin=origin,
    )


def stored_books(config: Config) -> Stored:
    """Return the books at the checkpoint. Raises SinkMismatch if there are none."""
    store = CheckpointStore(config.settlement.directory, LedgerFactory(), Ledger)
    try:
        # open() would create one.
        checkpoint = store.open(config.cluster) if (store.directory / FILE_NAME).exists() else None
        if checkpoint is None:
            raise SinkMismatch(f"{store.directory}: has no checkpoint of a settlement; run `smrx settle run` first")
        ledger = store.base()
        ledger.post(store.journal())
        image = store.image()
    finally:
        store.close()
    return Stored(ledger, checkpoint, image)


class _Fees:
    """The fee rates in force, by instrument and event."""

    def __init__(self, definitions: Rows) -> None:
        self._rules: dict[int, list[tuple[int, int, int]]] = {}
        for row in definitions[definitions["kind"] == int(EventKind.RULES_SET)]:
            at, taker, maker = (int(row[name]) for name in ("event_sequence", "taker_fee", "maker_fee"))
            self._rules.setdefault(int(row["id"]), [(0, 0, 0)]).append((at, taker, maker))

    def check(self, trades: Rows, name: str) -> None:
        """Check the fees of trades, whose notional has been checked."""
        for instrument in np.unique(trades["instrument"]).tolist():
            rules = np.array(self._rules.get(instrument, [(0, 0, 0)]), np.int64)
            own = trades[trades["instrument"] == instrument]
            at = np.searchsorted(rules[:, 0], own["event_sequence"].astype(np.int64), side="right") - 1
            for column, rates in (("taker_fee", rules[at, 1]), ("maker_fee", rules[at, 2])):
                whole, rest = np.divmod(own["notional"], _MILLION)
                expected = whole * rates - (-(rest * rates)) // _MILLION
                _equal(own, column, expected, name)


def _derive(name: str, reader: Reader, books: Ledger, found: Verified) -> None:
    checkpoint: Checkpoint | None = reader.checkpoint
    if checkpoint is None or checkpoint.event_sequence < books.sequence:
        stands = checkpoint.event_sequence if checkpoint else 0
        raise SinkMismatch(f"{name}: holds events up to {stands}, the books up to {books.sequence}")
    if checkpoint.origin != found.origin:
        raise SinkMismatch(
            f"{name}: must start where the books do, and has data of which {describe_origin(checkpoint)}"
        )
    before = found.origin.match_id if found.origin else 0
    definitions = reader.definitions()
    catalogue = Catalogue()
    catalogue.add(definitions)
    fees = _Fees(definitions)
    totals: dict[tuple[int, int], int] = {}
    movements = trades = 0
    for rows in reader.movements():
        rows = rows[rows["event_sequence"] <= books.sequence]
        signs = np.where(rows["kind"] == int(EventKind.WITHDRAWN), -1, 1)
        _add(totals, rows["account"], rows["asset"], rows["amount"] * signs)
        movements += int(np.count_nonzero(rows["kind"] != OPENING))
    for rows in reader.trades():
        rows = rows[rows["event_sequence"] <= books.sequence]
        _equal(rows, "match_id", before + np.arange(trades + 1, trades + 1 + len(rows), dtype=np.int64), name)
        _post(rows, catalogue, totals, fees, name)
        trades += len(rows)
    if trades != books.trades - before:
        raise SinkMismatch(f"{name}: expected {books.trades - before} trades, found {trades}")
    found.trades, found.movements = trades, movements
    found.balances = _compare_totals(totals, books, name)


def _post(trades: Rows, catalogue: Catalogue, totals: dict[tuple[int, int], int], fees: _Fees, name: str) -> None:
    if not len(trades):
        return
    known = {i: catalogue.instruments[i] for i in np.unique(trades["instrument"]).tolist()}

    def column(field: str) -> NDArray[Any]:
        return np.array([getattr(known[i], field) for i in trades["instrument"].tolist()], np.int64)

    notional = trades["price_ticks"] * trades["quantity_lots"] * column("scale_units")
    _equal(trades, "notional", notional, name)
    fees.check(trades, name)
    buys = trades["taker_side"] == int(Side.BUY)
    buyer = np.where(buys, trades["taker_account"], trades["maker_account"])
    seller = np.where(buys, trades["maker_account"], trades["taker_account"])
    base, quote = column("base_asset"), column("quote_asset")
    lots = trades["quantity_lots"] * column("lot_units")
    venue = np.zeros(len(trades), np.int64)
    for source, target, asset, amount in (
        (buyer, seller, quote, notional),
        (seller, buyer, base, lots),
        (trades["taker_account"], venue, quote, trades["taker_fee"]),
        (trades["maker_account"], venue, quote, trades["maker_fee"]),
    ):
        _add(totals, source, asset, -amount)
        _add(totals, target, asset, amount)


def _add(totals: dict[tuple[int, int], int], accounts: Any, assets: Any, amounts: Any) -> None:
    keys = (accounts.astype(np.uint64) << np.uint64(32)) | assets.astype(np.uint64)
    owners, places = np.unique(keys, return_inverse=True)
    sums = np.zeros(len(owners), np.int64)
    np.add.at(sums, places, amounts)
    for key, amount in zip(owners.tolist(), sums.tolist(), strict=True):
        owner = (key >> 32, key & 0xFFFF_FFFF)
        totals[owner] = totals.get(owner, 0) + amount


def _equal(trades: Rows, column: str, expected: NDArray[Any], name: str) -> None:
    wrong = np.flatnonzero(trades[column].astype(np.int64) != expected)
    if len(wrong):
        row = trades[wrong[0]]
        raise Violation(
            int(row["event_sequence"]),
            f"{name}: trade {int(row['match_id'])}: expected {column} {int(expected[wrong[0]])}, found "
            f"{int(row[column])}",
        )


def _compare_totals(totals: dict[tuple[int, int], int], books: Ledger, name: str) -> int:
    known = {(b.account, b.asset): b.total for b in books.balances()}
    for owner in sorted(known.keys() | totals.keys()):
        derived, stored = totals.get(owner, 0), known.get(owner, 0)
        if derived != stored:
            raise BalanceDifference(
                books.sequence,
                f"account {owner[0]}, asset {owner[1]}: the rows of {name} add up to {derived}, the books at event "
                f"{books.sequence} have {stored}",
            )
    return len(known)


def compare_books(ledger: Ledger, books: Ledger, who: str) -> None:
    """Check that derived and stored books are equal, line by line; `who` names the source. Raises BalanceDifference."""
    derived, stored = ({(b.account, b.asset): (b.total, b.held) for b in each.balances()} for each in (ledger, books))
    for owner in sorted(derived.keys() | stored.keys()):
        if derived.get(owner, (0, 0)) != stored.get(owner, (0, 0)):
            raise BalanceDifference(
                ledger.sequence,
                f"account {owner[0]}, asset {owner[1]}: {who} {_owned(derived.get(owner))}, the books of the "
                f"checkpoint have {_owned(stored.get(owner))}",
            )
    orders = ledger.order_leaves(), books.order_leaves()
    if orders[0] != orders[1]:
        order = min(
            number for number in orders[0].keys() | orders[1].keys() if orders[0].get(number) != orders[1].get(number)
        )
        left = [f"{side[order]} lots left" if order in side else "no open order" for side in orders]
        raise BalanceDifference(
            ledger.sequence, f"order {order}: {who} {left[0]}, the books of the checkpoint have {left[1]}"
        )


def _owned(balance: tuple[int, int] | None) -> str:
    return "nothing" if balance is None else f"{balance[0]} owned, {balance[1]} held"


class _AgainstReader:
    """A sink that stores nothing and compares every trade with those of a reader."""

    def __init__(self, name: str, reader: Reader) -> None:
        self.name = name
        self.movements = 0
        self._catalogue = Catalogue()
        self._stored: Iterator[Rows] = reader.trades()
        self._rows = np.empty(0, TRADE_ROW)

    def open(self, cluster: str) -> Checkpoint | None:
        """See Sink; it stores nothing."""
        return None

    def begin(self, checkpoint: Checkpoint, rows: Tables) -> None:
        """See Sink."""
        self._catalogue.add(rows.definitions)

    def write(self, events: Rows) -> None:
        """Compare the trades among the events with the next ones stored. Raises Violation."""
        tables = extract(events, self._catalogue)
        self.movements += len(tables.movements)
        derived = tables.trades
        while len(self._rows) < len(derived):
            more = next(self._stored, None)
            if more is None:
                missing = derived[len(self._rows)]
                raise Violation(
                    int(missing["event_sequence"]),
                    f"{self.name}: expected trade {int(missing['match_id'])}, found none",
                )
            self._rows = np.concatenate([self._rows, more])
        stored, self._rows = self._rows[: len(derived)], self._rows[len(derived) :]
        for column in TRADE_ROW.names or ():
            _equal(stored, column, derived[column].astype(np.int64), self.name)

    def commit(self, checkpoint: Checkpoint) -> None:
        """See Sink; it stores nothing."""

    def close(self) -> None:
        """See Sink."""
