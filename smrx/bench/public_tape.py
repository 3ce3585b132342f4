"""Read workloads of the public matching engine benchmark, and compute the hash of reports that it publishes.

github.com/flash1-dev/matching-engine-benchmark has a generator of order flow in five scenarios, and for each the
SHA-256 of what a correct engine reports. Its files are not part of smrx: build its generator and run it, with seed 23
and a million orders for the published hashes. A message becomes one command: a modification is a REPLACE, which loses
its place in the queue there as here. Owns the file format and the form of reports, see docs/METHODOLOGY.md of that
repository. Called by tapes.py and engine_bench.py.
"""

import hashlib
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from smrx.bench.bench_error import WrongResultError
from smrx.engine import Engine
from smrx.tape.tape_error import TapeError
from smrx.wire.client_order_ids import pack_numbers
from smrx.wire.codes import CommandKind, EventKind, OrderType, OutcomeStatus, Side, TimeInForce
from smrx.wire.command_list import CommandList
from smrx.wire.records import COMMAND

_HEADER: Final = np.dtype([("magic", "<u8"), ("version", "<u4"), ("count", "<u4")])
_MAGIC: Final = 0x4D4542575F303031
_VERSION: Final = 1
_MESSAGE: Final = np.dtype(
    [
        ("type", "u1"), ("side", "u1"), ("ioc", "u1"), ("pad", "u1"), ("quantity", "<u4"), ("sequence", "<u8"),
        ("order_id", "<u8"), ("price", "<i8"), ("reserved", "<i8"),
    ]
)  # fmt: skip
_NEW, _CANCEL, _MODIFY = range(3)
_KINDS: Final = np.array([CommandKind.PLACE, CommandKind.CANCEL, CommandKind.REPLACE], np.uint8)
#: Types of reports, each with the fields of its line.
_ORDER_ACK, _TRADE, _CANCEL_ACK, _MODIFY_ACK, _CANCEL_REJECT, _MODIFY_REJECT = range(6)
_REPORT_BATCH: Final = 4096

#: reference/correctness_hash.txt of the repository: seed 23, 1,000,000 orders.
PUBLISHED: Final = {
    "static": "9803843ee404fc29c9a0aa5614f8f0d5a58b5c44fcac9ef89067886fcaaa30d1",
    "normal": "e9b2e3926854410b01a035aeb25dd05f1e597c233be8263de9eb49b6713d367e",
    "swing-25": "61a84be9469661bd039e00dbc9a7c011e70b6ace37aadfe60045ea083b05f4df",
    "swing-40": "3cb0175e7982ff09ea220d1feaee3844cf9116a5ce455757879dea1d880b9b9f",
    "flash-crash": "cff8d3f94b709fc64a8b2058a6ca4fb6920364904796e46906895e362d2bb16b",
}


def scenario_of(reports: str) -> str | None:
    """Return the scenario for which a hash of reports is published, None if it is for none."""
    return next((name for name, published in PUBLISHED.items() if published == reports), None)


def read_messages(path: str) -> NDArray[Any]:
    """Return the messages of a workload file. Raises TapeError."""
    raw = Path(path).read_bytes()
    if len(raw) < _HEADER.itemsize:
        raise TapeError(f"{path}: expected a workload of the public benchmark, found {len(raw)} bytes")
    header = np.frombuffer(raw, _HEADER, 1)[0]
    if header["magic"] != _MAGIC or header["version"] != _VERSION:
        raise TapeError(f"{path}: expected a workload of the public benchmark, version {_VERSION}, found another file")
    size = _HEADER.itemsize + int(header["count"]) * _MESSAGE.itemsize
    if len(raw) != size:
        raise TapeError(f"{path}: expected {size} bytes for {header['count']} messages, found {len(raw)}")
    messages = np.frombuffer(raw, _MESSAGE, int(header["count"]), _HEADER.itemsize)
    if len(messages) and messages["type"].max() > _MODIFY:
        raise TapeError(f"{path}: expected messages of type 0 to {_MODIFY}, found {messages['type'].max()}")
    return messages


def commands_of(messages: NDArray[Any], accounts: int, instrument: int) -> NDArray[Any]:
    """Return the commands without session and request ids. A REPLACE has the lots that are open after it."""
    rows = np.zeros(len(messages), COMMAND)
    kinds = messages["type"]
    rows["kind"] = _KINDS[kinds]
    rows["account"] = 1 + messages["order_id"] % accounts
    rows["client_order_id"] = pack_numbers(messages["order_id"])
    new, modified = kinds == _NEW, kinds == _MODIFY
    changes = new | modified
    rows["price_ticks"][changes] = messages["price"][changes]
    rows["quantity_lots"][changes] = messages["quantity"][changes]
    rows["instrument"][new] = instrument
    rows["side"][new] = np.where(messages["side"][new] == 0, Side.BUY, Side.SELL)
    rows["order_type"][new] = OrderType.LIMIT
    rows["tif"][new] = np.where(messages["ioc"][new] != 0, TimeInForce.IOC, TimeInForce.GTC)
    return rows


def add_filled_lots(messages: NDArray[Any], rows: NDArray[Any], before: CommandList) -> None:
    """Add to each REPLACE the lots that its order has filled by then: its quantity includes them."""
    engine = Engine(hash=False, ledger=False, reports=False)
    engine.apply(before.records, 1, before.details)
    first = engine.sequence + 1
    names = messages["order_id"].astype(np.int64)
    filled = np.zeros(int(names.max(initial=0)) + 1, np.int64)
    done = 0
    for at in np.flatnonzero(messages["type"] == _MODIFY).tolist():
        events = engine.apply(rows[done:at], 1).events
        trades = events[events["kind"] == EventKind.TRADE]
        # An order has the sequence of its command as its id.
        for order in ("order_id", "counter_order_id"):
            np.add.at(filled, names[trades[order].astype(np.int64) - first], trades["quantity_lots"])
        rows["quantity_lots"][at] += filled[names[at]]
        done = at


def report_hash(messages: NDArray[Any], rows: NDArray[Any], before: CommandList) -> str:
    """Apply the commands to a new engine; return the SHA-256 of its reports, in the form of the public benchmark.

    Raises WrongResultError for an answer that has no form there.
    """
    engine = Engine()
    engine.apply(before.records, 1, before.details)
    first = engine.sequence + 1
    names = messages["order_id"].tolist()
    total = hashlib.sha256()
    for start in range(0, len(rows), _REPORT_BATCH):
        part = slice(start, min(start + _REPORT_BATCH, len(rows)))
        result = engine.apply(rows[part], 1)
        lines = _lines(messages[part], start, result.outcomes, result.events, names, first)
        total.update(("\n" if start else "").encode() + "\n".join(lines).encode())
    return total.hexdigest()


def _lines(
    messages: NDArray[Any], start: int, outcomes: NDArray[Any], events: NDArray[Any], names: list[int], first: int
) -> list[str]:
    """Return the reports of some messages, in order of messages and then of types."""
    trades: dict[int, list[str]] = {}
    ends: dict[int, str] = {}
    wanted = events[np.isin(events["kind"], (EventKind.TRADE, EventKind.CANCELLED, EventKind.EXPIRED))]
    fields = ("kind", "command_sequence", "price_ticks", "quantity_lots", "order_id", "counter_order_id", "side")
    for kind, sequence, price, lots, order, maker, side in zip(
        *(wanted[name].tolist() for name in fields), strict=True
    ):
        at, name = sequence - first, names[order - first]
        if kind == EventKind.TRADE:
            trades.setdefault(at, []).append(f"{_TRADE},{at},{price},{lots},{names[maker - first]},{name}")
        else:
            ends[at] = f"{_CANCEL_ACK},{at},{side - 1},{name},{price}"
    lines: list[str] = []
    own = ("type", "side", "order_id", "price", "quantity")
    columns = [messages[name].tolist() for name in own] + [outcomes["status"].tolist()]
    for at, (kind, side, name, price, lots, status) in enumerate(zip(*columns, strict=True), start):
        if status != OutcomeStatus.ACCEPTED:
            if kind == _NEW:
                raise WrongResultError(f"message {at}: the engine refused a new order")
            lines.append(f"{_CANCEL_REJECT if kind == _CANCEL else _MODIFY_REJECT},{at},{name}")
            continue
        if kind == _NEW:
            lines.append(f"{_ORDER_ACK},{at},{side},{name},{price},{lots}")
        lines += trades.get(at, ())
        if at in ends:
            lines.append(ends[at])
        if kind == _MODIFY:
            lines.append(f"{_MODIFY_ACK},{at},{side},{name},{price},{lots}")
    return lines
