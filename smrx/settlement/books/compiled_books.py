"""Compile the entry points of the books, and create and grow their tables. Called by ledger.py only."""

from typing import Any, Final

import numpy as np

from smrx.engine.kernels.jit import entry_point, fingerprint
from smrx.follower.record_table import FIRST_SIZE, copy_all, filled, is_compiled, live, table_size
from smrx.settlement.books.book_tables import ACCOUNT, CORE, TYPES, Tables
from smrx.settlement.books.event_rows import ROW
from smrx.settlement.books.posting import post_one

#: New records one event can make in a table: a trade touches four balances of its parties and one of the venue.
_NEW_PER_EVENT: Final = {"orders": 1, "balances": 5, "accounts": 1, "assets": 1, "instruments": 1}


def _compiled(source: int) -> tuple[Any, Any]:
    """Return the entry points, compiled again whenever the source of any kernel changes (see jit.fingerprint)."""
    version = np.uint64(source)

    def post_rows(tables: Any, rows: Any, numbers: Any) -> Any:
        """Post events in order; return the first fault, with its event's index in numbers[4], or 0."""
        if version == np.uint64(len(rows)):  # never true: it makes the version a part of the compiled code
            return 0
        for i in range(len(rows)):
            fault = post_one(tables, rows[i], numbers)
            if fault != 0:
                numbers[4] = i
                return fault
        return 0

    def copy_records(table: Any, records: Any) -> None:
        if version != np.uint64(0):
            copy_all(table, records)

    return entry_point(post_rows), entry_point(copy_records)


#: Every module whose source is compiled into the entry points.
_MODULES: Final = (
    *(
        f"{__package__}.{name}"
        for name in (
            "event_rows", "book_tables", "posting_faults", "money", "open_orders", "trades", "definitions",
            "following", "posting_table", "posting", "compiled_books",
        )
    ),
    "smrx.follower.record_table",
    "smrx.wire.codes",
    "smrx.wire.records",
    "smrx.engine.kernels.jit",
)  # fmt: skip
post_rows, copy_records = _compiled(fingerprint(*_MODULES))


def compiled_before() -> bool:
    """Return whether the compiled books are in the cache; if not, compiling them takes some seconds."""
    return is_compiled(post_rows)


def warm_up() -> None:
    """Compile the books, or load them from the cache."""
    tables = empty()
    for name, dtype in TYPES.items():
        copy_records(getattr(tables, name), np.zeros(0, dtype))
    post_rows(tables, np.zeros(0, ROW), np.zeros(5, np.int64))


def empty() -> Tables:
    """Return empty books, in which only the venue's account exists."""
    tables = Tables(
        **{name: np.zeros(FIRST_SIZE, dtype) for name, dtype in TYPES.items()},
        core=np.zeros(1, CORE),
        last=np.zeros(2, ROW),
    )
    copy_records(tables.accounts, np.ones(1, ACCOUNT))
    tables.core["accounts"] = 1
    return tables


def with_room(tables: Tables, events: int) -> Tables:
    """Return tables with space for any `events` events; the same arrays if they have it."""
    core = tables.core[0]
    grown = {}
    for name, new in _NEW_PER_EVENT.items():
        table = getattr(tables, name)
        needed = int(core[name]) + new * events
        if table_size(needed) > len(table):
            grown[name] = filled(live(table), needed, copy_records)
    return tables._replace(**grown) if grown else tables
