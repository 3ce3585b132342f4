"""Compute the content hash from scratch: the words of state_hash.py from the records, with NumPy and xxhash.

Shares only the tags with the kernels, so that each checks the other. Called by engine.py, invariants.py and
snapshot.py.
"""

from collections.abc import Callable
from typing import Any, Final, NamedTuple

import numpy as np
import xxhash
from numpy.typing import NDArray

from smrx.engine.checks.record_columns import BLOCK, NUMBERS
from smrx.engine.checks.retention_invariants import have_broken_chains, kept_counts, newest_chains
from smrx.engine.checks.xxh3_rows import hash_rows
from smrx.engine.kernels.jit import U32
from smrx.engine.kernels.state_hash import (
    ACCOUNT_TAG,
    ASSET_TAG,
    BALANCE_TAG,
    CAPACITY_TAG,
    COUNTERS_TAG,
    CREDENTIAL_TAG,
    EXTENSION_TAG,
    FIRM_TAG,
    INSTRUMENT_TAG,
    LIMITS_TAG,
    LONG_ID_TAG,
    NETWORKS_TAG,
    OPENED_BY_TAG,
    ORDER_TAG,
    PRICE_TAG,
    RETENTION_TAG,
    RULES_TAG,
    SESSION_TAG,
    TERMS_TAG,
    TRANSFER_TAG,
)
from smrx.engine.state import DEFAULT_CAPACITIES, FIRST_RULES, State
from smrx.wire.records import ADDRESS_SIZE, CAPACITIES, CLIENT_ORDER_ID_SIZE, KEY_SIZE, NETWORKS, ORDER_DETAILS

_MASK: Final = (1 << 64) - 1
ID_WORDS: Final = CLIENT_ORDER_ID_SIZE // 8
#: The fields of an order's details: the words of its client order id, and its terms.
ID_FIELDS: Final = tuple(f"client_order_id_{at}" for at in range(ID_WORDS))
TERMS_FIELDS: Final = tuple(
    name for name in ORDER_DETAILS.names or () if name != "client_order_id" and not name.startswith("reserved")
)

Words = NDArray[np.uint64]


def _words(*columns: Any) -> Words:
    """Return one row of words for each record."""
    return np.stack([np.asarray(column).astype(np.uint64) for column in columns], axis=1)


def _both(low: Any, high: Any) -> Any:
    """Pack two columns of u32 into words."""
    return low.astype(np.uint64) | (high.astype(np.uint64) << U32)


def _head(tag: np.uint64, *fields: Any) -> Any:
    """Return the first words: the tag of the record, and its small fields in the bytes above."""
    word = np.full(len(fields[0]), tag, dtype=np.uint64)
    for position, field in enumerate(fields, start=1):
        word |= field.astype(np.uint64) << np.uint64(8 * position)
    return word


def _order_words(_: State, rows: Any) -> Words:
    return _words(
        _head(ORDER_TAG, rows["side"], rows["order_type"], rows["tif"], rows["stp"], rows["flags"]),
        rows["order_id"], _both(rows["account_id"], rows["instrument_id"]), rows["client_order_id"],
        rows["price"], rows["quantity"], rows["cum"], rows["priority"],
    )  # fmt: skip


def _extension_words(state: State, rows: Any) -> Words:
    sessions = state.sessions["session_id"][np.minimum(rows["session"], len(state.sessions) - 1)]
    return _words(np.full(len(rows), EXTENSION_TAG), rows["order_id"], rows["shown"], sessions)


def _details(state: State, rows: Any) -> Any:
    """Return the details of each order; those of an order without are empty."""
    return state.order_details[np.minimum(rows["details"], len(state.order_details) - 1)]


def _long_id_words(state: State, rows: Any) -> Words:
    details = _details(state, rows)
    text = [details[f"client_order_id_{at}"] for at in range(ID_WORDS)]
    return _words(np.full(len(rows), LONG_ID_TAG), rows["order_id"], *text)


def _terms_words(state: State, rows: Any) -> Words:
    details = _details(state, rows)
    return _words(
        np.full(len(rows), TERMS_TAG), rows["order_id"], details["stop_price_ticks"], details["display_lots"],
        details["expiry_ns"], details["trailing_offset_ticks"], details["peg_offset_ticks"], details["order_list_id"],
        _both(details["credential"], details["peg_reference"]),
    )  # fmt: skip


def _balance_words(_: State, rows: Any) -> Words:
    head = np.full(len(rows), BALANCE_TAG)
    return _words(head, _both(rows["account_id"], rows["asset_id"]), rows["available"], rows["held"])


def _account_words(_: State, rows: Any) -> Words:
    return _words(_head(ACCOUNT_TAG, rows["status"]), rows["account_id"])


def _limit_words(_: State, rows: Any) -> Words:
    return _words(
        np.full(len(rows), LIMITS_TAG), _both(rows["account_id"], rows["max_open_orders"]),
        rows["max_open_notional"], rows["max_order_notional"], rows["max_order_quantity"],
    )  # fmt: skip


def _firm_words(_: State, rows: Any) -> Words:
    return _words(np.full(len(rows), FIRM_TAG), _both(rows["account_id"], rows["firm"]))


def _credential_words(_: State, rows: Any) -> Words:
    head = _head(CREDENTIAL_TAG, rows["scope"], rows["revoked"])
    return _words(
        head | (rows["prefixes"].astype(np.uint64) << U32), _both(rows["credential_id"], rows["permissions"]),
        rows["subject"], rows["expires_ns"], *(rows[f"key_{at}"] for at in range(KEY_SIZE // 8)),
    )  # fmt: skip


def _network_words(_: State, rows: Any) -> Words:
    networks = (rows[f"networks_{at}"] for at in range(NETWORKS * ADDRESS_SIZE // 8))
    return _words(np.full(len(rows), NETWORKS_TAG), rows["credential_id"], *networks)


def _opened_by_words(_: State, rows: Any) -> Words:
    return _words(OPENED_BY_TAG | (rows["credential_id"].astype(np.uint64) << U32), rows["session_id"])


def _asset_words(_: State, rows: Any) -> Words:
    return _words(
        _head(ASSET_TAG, rows["decimals"]), rows["asset_id"], rows["symbol_0"], rows["symbol_1"], rows["supply"],
        rows["cap"],
    )  # fmt: skip


def _instrument_words(_: State, rows: Any) -> Words:
    return _words(
        _head(INSTRUMENT_TAG, rows["status"]), rows["instrument_id"],
        rows["symbol_0"], rows["symbol_1"], rows["symbol_2"],
        _both(rows["base_id"], rows["quote_id"]), _both(rows["lot_units"], rows["scale_units"]),
        rows["max_price"], rows["max_quantity"],
    )  # fmt: skip


def _rule_words(_: State, rows: Any) -> Words:
    head = _head(RULES_TAG, rows["band_bp"])
    for field, bits in (("collar_bp", 24), ("collar_reference", 40), ("rule_flags", 48)):
        head = head | (rows[field].astype(np.uint64) << np.uint64(bits))
    return _words(
        head, rows["instrument_id"], _both(rows["taker_fee"], rows["maker_fee"]),
        rows["min_price"], rows["min_quantity"], rows["min_notional"], rows["max_notional"],
    )  # fmt: skip


def _price_words(_: State, rows: Any) -> Words:
    return _words(PRICE_TAG | (rows["instrument_id"].astype(np.uint64) << U32), rows["last_price"])


def _session_words(_: State, rows: Any) -> Words:
    head = _head(SESSION_TAG, rows["flags"], rows["closed"], rows["run"])
    owner = rows["account_id"].astype(np.uint64) << U32
    return _words(head | owner, rows["session_id"], rows["last_active_ns"], rows["activity"])


def _transfer_words(_: State, rows: Any) -> Words:
    head = _head(TRANSFER_TAG, rows["kind"])
    owner = _both(rows["account_id"], rows["asset_id"])
    return _words(head, rows["transfer_id"], owner, rows["amount"], rows["time_ns"], rows["sequence"])


class Part(NamedTuple):
    """Words that a slot adds to the content hash if a field in `needed_by` is not 0 (always, if it is empty).

    With `of_details`, the fields are those of an order's details.
    """

    words: Callable[[State, Any], Words]
    needed_by: tuple[str, ...] = ()
    of_details: bool = False


#: The tables of the content hash, in the order in which `scrub` reads them, and what each of their slots adds.
WORDS: Final[dict[str, tuple[Part, ...]]] = {
    "orders": (
        Part(_order_words),
        Part(_extension_words, ("shown", "session")),
        Part(_long_id_words, ID_FIELDS, True),
        Part(_terms_words, TERMS_FIELDS, True),
    ),
    "balances": (Part(_balance_words),),
    "accounts": (
        Part(_account_words),
        Part(_limit_words, ("max_open_orders", "max_open_notional", "max_order_notional", "max_order_quantity")),
        Part(_firm_words, ("firm",)),
    ),
    "assets": (Part(_asset_words),),
    "instruments": (
        Part(_instrument_words),
        Part(
            _rule_words,
            (
                "band_bp",
                "taker_fee",
                "maker_fee",
                "min_price",
                "min_quantity",
                "min_notional",
                "max_notional",
                "collar_bp",
                "collar_reference",
                "rule_flags",
            ),
        ),
        Part(_price_words, ("last_price",)),
    ),
    "sessions": (Part(_session_words), Part(_opened_by_words, ("credential_id",))),
    "transfers": (Part(_transfer_words),),
    "credentials": (Part(_credential_words), Part(_network_words, ("prefixes",))),
}


def record_hashes(state: State, table: str, rows: Any) -> Words:
    """Return what each of a table's records adds to the content hash, whether it is live or not."""
    total = np.zeros(len(rows), dtype=np.uint64)
    for part in WORDS[table]:
        if not part.needed_by:
            total += hash_rows(part.words(state, rows))
            continue
        needed = np.zeros(len(rows), dtype=bool)
        if part.of_details and not rows["details"].any():
            continue
        fields = _details(state, rows) if part.of_details else rows
        for field in part.needed_by:
            needed |= fields[field] != 0
        if needed.any():
            total[needed] += hash_rows(part.words(state, rows[needed]))
    if table == "sessions":
        total += newest_chains(state, rows)
    return total


def static_hashes(state: State, rows: Any) -> Words:
    """Return the part of each instrument's hash that no trade changes."""
    untraded = rows.copy()
    untraded["last_price"] = 0
    return record_hashes(state, "instruments", untraded)


def retention(state: State) -> int:
    """Return the hash of what SET_RETENTION sets."""
    core = state.core[0]
    periods = int(core["session_silence_s"]) | int(core["transfer_age_s"]) << 32
    words = np.array([int(RETENTION_TAG), periods, int(core["transfers"])], dtype="<u8")
    return xxhash.xxh3_64_intdigest(words.tobytes())


def capacity(state: State) -> int:
    """Return the hash of what SET_CAPACITY sets; 0 if it is the default."""
    core = state.core[0]
    if all(int(core[name]) == value for name, value in DEFAULT_CAPACITIES.items()):
        return 0
    numbers = np.array([int(core[f"max_{name}"]) for name in CAPACITIES], dtype="<u4")
    return xxhash.xxh3_64_intdigest(int(CAPACITY_TAG).to_bytes(8, "little") + numbers.tobytes())


def counters(state: State) -> int:
    """Return the hash of the counters, which the content hash includes for each command."""
    core = state.core[0]
    head = int(COUNTERS_TAG) | int(core["killed"]) << 8 | (int(core["rules_version"]) - FIRST_RULES) << 16
    names = ("command_sequence", "event_sequence", "match_sequence", "time_ns")
    words = np.array([head, *(int(core[name]) & _MASK for name in names)], dtype="<u8")
    return xxhash.xxh3_64_intdigest(words.tobytes())


def compare_table(state: State, table: str) -> tuple[int, str | None]:
    """Return the sum of the hashes of a table's live records, and the name of the first whose stored hash is wrong."""
    rows = getattr(state, table)[: int(state.pools["top"][NUMBERS[table]])]
    total, bad = 0, None
    # In blocks whose words stay in the cache: a whole table would be read from memory a hundred times.
    for start in range(0, len(rows), BLOCK):
        block = rows[start : start + BLOCK]
        live = block["live"] != 0
        if not live.any():
            continue
        fresh = record_hashes(state, table, block)
        fresh[~live] = 0
        total += int(fresh.sum(dtype=np.uint64))
        wrong = live & (fresh != block["hash"])
        if bad is None and wrong.any():
            bad = record_name(table, block[wrong][0])
    return total, bad


def recomputed(state: State) -> int:
    """Return the content hash, computed from the records alone."""
    total = counters(state) + retention(state) + capacity(state)
    return (total + sum(compare_table(state, table)[0] for table in WORDS)) & _MASK


def maintained(state: State) -> int:
    """Return the content hash as the kernels maintain it."""
    return (int(state.core["digest"][0]) + counters(state)) & _MASK


def balance_sums(state: State) -> dict[str, int]:
    """Return the sums of the stored hashes of balances, and their number, as the core keeps them."""
    rows = state.balances[: int(state.pools["top"][NUMBERS["balances"]])]
    count = total = empty = 0
    for start in range(0, len(rows), BLOCK):
        block = rows[start : start + BLOCK]
        live = block["live"] != 0
        funded = live & ((block["available"] | block["held"]) != 0)
        count += int(np.count_nonzero(funded))
        total += int(block["hash"][live].sum(dtype=np.uint64))
        empty += int(block["hash"][live & ~funded].sum(dtype=np.uint64))
    return {"funded_balances": count, "balance_sum": total & _MASK, "empty_sum": empty & _MASK}


def scrub(state: State, start: int, records: int) -> tuple[int, str | None]:
    """Compare the stored hashes of a slice of all records with the records.

    Returns where to continue, 0 after the last record, and the name of the first record that does not match its hash.
    """
    offset = 0
    for table in WORDS:
        rows = getattr(state, table)
        first = max(start - offset, 0)
        if first < len(rows) and records > 0:
            part = rows[first : first + records]
            if table == "sessions":
                # Each answer counts as a record; at least one session.
                part = part[: max(1, np.searchsorted(np.cumsum(1 + kept_counts(part)), records))]
            bad = _first_bad(state, table, part)
            if bad is not None:
                return start, bad
            records -= len(part) if table != "sessions" else records
            start = offset + first + len(part)
        offset += len(rows)
    return (0 if start >= offset else start), None


def _first_bad(state: State, table: str, rows: Any) -> str | None:
    """Return the name of the first live record that does not match its stored hash."""
    live = rows[rows["live"] != 0]
    bad = record_hashes(state, table, live) != live["hash"]
    if table == "sessions":
        bad |= have_broken_chains(state, live)
    wrong = live[bad]
    return record_name(table, wrong[0]) if len(wrong) else None


def record_name(table: str, row: Any) -> str:
    """Return a record's kind and id, for messages."""
    if table == "balances":
        return f"balance account {int(row['account_id'])} asset {int(row['asset_id'])}"
    kind = table.removesuffix("s")
    return f"{kind} {int(row[f'{kind}_id'])}"
