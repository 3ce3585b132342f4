"""Compare two states record by record: which records differ, in which fields.

Records are matched by their ids. What is memory management does not count: slot numbers, links between slots and stored
hashes. Called by engine.py, for `smrx shadow`.
"""

from collections.abc import Iterator
from typing import Any, Final, NamedTuple

import numpy as np

from smrx.engine.checks.full_hash import WORDS
from smrx.engine.state import State

#: The fields that identify a record of each table.
KEYS: Final[dict[str, tuple[str, ...]]] = {
    "orders": ("order_id",),
    "balances": ("account_id", "asset_id"),
    "accounts": ("account_id",),
    "assets": ("asset_id",),
    "instruments": ("instrument_id",),
    "sessions": ("session_id",),
    "transfers": ("transfer_id",),
    "credentials": ("credential_id",),
}
#: Fields that hold slot numbers or hashes, in any table.
_MEMORY: Final = {
    "hash", "static_hash", "live", "next", "first", "last", "account", "instrument", "level", "before", "older",
    "newer", "gives", "takes", "place", "session", "fee_balance", "details", "credential",
}  # fmt: skip
#: Counters of the engine that are part of its state.
_COUNTERS: Final = ("command_sequence", "event_sequence", "match_sequence", "time_ns", "killed", "rules_version")


class RecordDifference(NamedTuple):
    """A record with different fields: field -> its values in both states, None in a state without the record."""

    table: str
    key: tuple[int, ...]
    fields: dict[str, tuple[int | None, int | None]]


def differing_records(first: State, second: State, limit: int) -> list[RecordDifference]:
    """Return up to `limit` differences, the counters first."""
    found: list[RecordDifference] = []
    for difference in _differences(first, second):
        if len(found) == limit:
            break
        found.append(difference)
    return found


def _differences(first: State, second: State) -> Iterator[RecordDifference]:
    ours, theirs = ({name: int(state.core[name][0]) for name in _COUNTERS} for state in (first, second))
    if ours != theirs:
        yield RecordDifference("counters", (), _fields(ours, theirs))
    for table in WORDS:
        left, right = _suspects(first, second, table)
        for key in sorted(left.keys() | right.keys()):
            fields = _fields(left.get(key), right.get(key))
            if fields:
                yield RecordDifference(table, key, fields)


def _fields(ours: dict[str, int] | None, theirs: dict[str, int] | None) -> dict[str, tuple[int | None, int | None]]:
    names = (ours or theirs or {}).keys()
    pairs = {name: ((ours or {}).get(name), (theirs or {}).get(name)) for name in names}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def _suspects(first: State, second: State, table: str) -> tuple[dict[tuple[int, ...], Any], ...]:
    """Return the records of both states whose stored hash the other state does not have, by key."""
    rows = [getattr(state, table) for state in (first, second)]
    live = [part[part["live"] != 0] for part in rows]
    others = reversed(live)
    return tuple(
        _by_key(part[~np.isin(part["hash"], other["hash"])], table) for part, other in zip(live, others, strict=True)
    )


def _by_key(rows: Any, table: str) -> dict[tuple[int, ...], dict[str, int]]:
    names = [name for name in rows.dtype.names if name not in _MEMORY]
    found = {}
    for row in rows:
        fields = {name: int(row[name]) for name in names}
        found[tuple(fields[name] for name in KEYS[table])] = fields
    return found
