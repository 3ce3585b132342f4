"""The state hash: canonical words of every live record, their hashes, and the sum of those.

`refresh_*` bring the sum up to date after a record changed: each record keeps the hash it had, so a change costs one
hash. The words hold no slot numbers and nothing of the memory's layout. `from_scratch` does the same again from all
records, through the xxhash package and not through these kernels, so that each checks the other.
"""

from collections.abc import Callable
from typing import Any, Final

import numpy as np
import xxhash
from numpy.typing import NDArray

from .jit import U32, Record, inlined, kernel
from .state import State
from .xxh3 import hash2, hash3, hash4, hash5, hash7, hash8, hash_events

ORDER_TAG: Final = np.uint64(1)
BALANCE_TAG: Final = np.uint64(2)
ACCOUNT_TAG: Final = np.uint64(3)
ASSET_TAG: Final = np.uint64(4)
INSTRUMENT_TAG: Final = np.uint64(5)
SESSION_TAG: Final = np.uint64(6)
TRANSFER_TAG: Final = np.uint64(7)
COUNTERS_TAG: Final = np.uint64(8)

U8: Final = np.uint64(8)
U16: Final = np.uint64(16)
U24: Final = np.uint64(24)
U40: Final = np.uint64(40)
_MASK: Final = (1 << 64) - 1


@inlined
def pair(low: Any, high: Any) -> Any:
    """Two u32 in one word."""
    return np.uint64(low) | (np.uint64(high) << U32)


@kernel
def order_hash(order: Record) -> Any:
    return hash8(
        ORDER_TAG
        | (np.uint64(order.side) << U8)
        | (np.uint64(order.order_type) << U16)
        | (np.uint64(order.tif) << U24)
        | (np.uint64(order.stp) << U32)
        | (np.uint64(order.flags) << U40),
        order.order_id,
        pair(order.account_id, order.instrument_id),
        order.client_order_id,
        np.uint64(order.price),
        np.uint64(order.quantity),
        np.uint64(order.cum),
        order.priority,
    )


@inlined
def exchange(core: Record, record: Record, new: Any) -> None:
    """Put a record's new hash in the place of its old one."""
    core.digest += new - record.hash
    record.hash = new


@inlined
def forget(core: Record, record: Record) -> None:
    """Take a record that is about to go out of the sum."""
    core.digest -= record.hash
    record.hash = 0


@kernel
def refresh_order(core: Record, order: Record) -> None:
    if core.hashing != 0:
        exchange(core, order, order_hash(order))


@kernel
def refresh_balance(core: Record, balance: Record) -> None:
    if core.hashing != 0:
        owner = pair(balance.account_id, balance.asset_id)
        exchange(core, balance, hash4(BALANCE_TAG, owner, np.uint64(balance.available), np.uint64(balance.held)))


@kernel
def refresh_account(core: Record, account: Record) -> None:
    if core.hashing != 0:
        head = ACCOUNT_TAG | (np.uint64(account.status) << U8)
        exchange(core, account, hash2(head, np.uint64(account.account_id)))


@kernel
def refresh_asset(core: Record, asset: Record) -> None:
    if core.hashing != 0:
        head = ASSET_TAG | (np.uint64(asset.decimals) << U8)
        exchange(core, asset, hash4(head, np.uint64(asset.asset_id), asset.symbol, np.uint64(asset.supply)))


@kernel
def refresh_instrument(core: Record, instrument: Record) -> None:
    if core.hashing != 0:
        new = hash7(
            INSTRUMENT_TAG | (np.uint64(instrument.status) << U8),
            np.uint64(instrument.instrument_id),
            instrument.symbol,
            pair(instrument.base_id, instrument.quote_id),
            pair(instrument.lot_units, instrument.scale_units),
            np.uint64(instrument.max_price),
            np.uint64(instrument.max_quantity),
        )
        exchange(core, instrument, new)


@kernel
def refresh_session(core: Record, session: Record) -> None:
    if core.hashing != 0:
        owner = np.uint64(session.account_id)
        exchange(core, session, hash4(SESSION_TAG, session.session_id, owner, session.last_request_id))


@kernel
def refresh_transfer(core: Record, transfer: Record) -> None:
    if core.hashing != 0:
        head = TRANSFER_TAG | (np.uint64(transfer.kind) << U8)
        owner = pair(transfer.account_id, transfer.asset_id)
        exchange(core, transfer, hash4(head, transfer.transfer_id, owner, np.uint64(transfer.amount)))


@inlined
def counters_hash(core: Record) -> Any:
    return hash5(COUNTERS_TAG, core.command_sequence, core.event_sequence, core.match_sequence, np.uint64(core.time_ns))


@inlined
def chain(core: Record, ring: Any, event_words: Any, first: Any, count: Any) -> None:
    """The state hash after a command, from the one before it, the content and the command's events."""
    if core.hashing != 0:
        content = core.digest + counters_hash(core)
        core.state_hash = hash3(core.state_hash, content, hash_events(event_words, first * 16, count))
        ring[core.command_sequence & np.uint64(len(ring) - 1)] = core.state_hash


# From here on plain NumPy and the xxhash package: the same hashes again, by other means.

Words = NDArray[np.uint64]


def _words(*columns: Any) -> Words:
    """One row of words a record."""
    return np.stack([np.asarray(column).astype(np.uint64) for column in columns], axis=1)


def _both(low: Any, high: Any) -> Any:
    return low.astype(np.uint64) | (high.astype(np.uint64) << U32)


def _head(tag: np.uint64, *fields: Any) -> Any:
    """The first word: the kind of the record, and its small fields in the bytes above."""
    word = np.full(len(fields[0]), tag, dtype=np.uint64)
    for position, field in enumerate(fields, start=1):
        word |= field.astype(np.uint64) << np.uint64(8 * position)
    return word


def _order_words(rows: Any) -> Words:
    return _words(
        _head(ORDER_TAG, rows["side"], rows["order_type"], rows["tif"], rows["stp"], rows["flags"]),
        rows["order_id"], _both(rows["account_id"], rows["instrument_id"]), rows["client_order_id"],
        rows["price"], rows["quantity"], rows["cum"], rows["priority"],
    )  # fmt: skip


def _balance_words(rows: Any) -> Words:
    head = np.full(len(rows), BALANCE_TAG)
    return _words(head, _both(rows["account_id"], rows["asset_id"]), rows["available"], rows["held"])


def _account_words(rows: Any) -> Words:
    return _words(_head(ACCOUNT_TAG, rows["status"]), rows["account_id"])


def _asset_words(rows: Any) -> Words:
    return _words(_head(ASSET_TAG, rows["decimals"]), rows["asset_id"], rows["symbol"], rows["supply"])


def _instrument_words(rows: Any) -> Words:
    return _words(
        _head(INSTRUMENT_TAG, rows["status"]), rows["instrument_id"], rows["symbol"],
        _both(rows["base_id"], rows["quote_id"]), _both(rows["lot_units"], rows["scale_units"]),
        rows["max_price"], rows["max_quantity"],
    )  # fmt: skip


def _session_words(rows: Any) -> Words:
    return _words(np.full(len(rows), SESSION_TAG), rows["session_id"], rows["account_id"], rows["last_request_id"])


def _transfer_words(rows: Any) -> Words:
    head = _head(TRANSFER_TAG, rows["kind"])
    return _words(head, rows["transfer_id"], _both(rows["account_id"], rows["asset_id"]), rows["amount"])


#: The tables that count in the digest, in the order in which scrubbing walks them.
WORDS: Final[dict[str, Callable[[Any], Words]]] = {
    "orders": _order_words,
    "balances": _balance_words,
    "accounts": _account_words,
    "assets": _asset_words,
    "instruments": _instrument_words,
    "sessions": _session_words,
    "transfers": _transfer_words,
}


def record_hashes(table: str, rows: Any) -> Words:
    """The hash of each of a table's records."""
    words = np.ascontiguousarray(WORDS[table](rows), dtype="<u8")
    data = memoryview(words.tobytes())
    size = words.shape[1] * 8
    starts = range(0, len(data), size)
    return np.array([xxhash.xxh3_64_intdigest(data[at : at + size]) for at in starts], dtype=np.uint64)


def counters(state: State) -> int:
    """The hash of the counters, which is added to the digest for each command."""
    core = state.core[0]
    names = ("command_sequence", "event_sequence", "match_sequence", "time_ns")
    words = np.array([COUNTERS_TAG, *(np.uint64(int(core[name]) & _MASK) for name in names)], dtype="<u8")
    return xxhash.xxh3_64_intdigest(words.tobytes())


def from_scratch(state: State) -> int:
    """The content digest, from the records alone."""
    total = counters(state)
    for table in WORDS:
        rows = getattr(state, table)
        total += int(record_hashes(table, rows[rows["live"] != 0]).sum(dtype=np.uint64))
    return total & _MASK


def incremental(state: State) -> int:
    """The content digest as the kernels kept it."""
    return (int(state.core["digest"][0]) + counters(state)) & _MASK


def scrub(state: State, start: int, records: int) -> tuple[int, str | None]:
    """Compare the hashes kept in a slice of all records with the records.

    Returns where to go on, 0 after the last record, and the name of the first record that is not what was hashed.
    """
    offset = 0
    for table in WORDS:
        rows = getattr(state, table)
        first = max(start - offset, 0)
        if first < len(rows) and records > 0:
            part = rows[first : first + records]
            bad = _first_bad(table, part)
            if bad is not None:
                return start, bad
            records -= len(part)
            start = offset + first + len(part)
        offset += len(rows)
    return (0 if start >= offset else start), None


def _first_bad(table: str, rows: Any) -> str | None:
    live = rows[rows["live"] != 0]
    wrong = live[record_hashes(table, live) != live["hash"]]
    return name_of(table, wrong[0]) if len(wrong) else None


def name_of(table: str, row: Any) -> str:
    """A record, for people: what it is, and the number by which it is known."""
    if table == "balances":
        return f"balance account {int(row['account_id'])} asset {int(row['asset_id'])}"
    kind = table.removesuffix("s")
    return f"{kind} {int(row[f'{kind}_id'])}"
