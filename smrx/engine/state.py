"""The engine's state: flat arrays of records, linked by slot numbers.

Owns the layout, its allocation and its growth (memory.py has the means). Slot 0 of every table is empty and means
"none". A slot number is memory management: it never appears in an event, an outcome or a hash. Free slots of a table
form a list through `next`. The names and types of all fields are part of the snapshot format (snapshot.LAYOUT). Called
by engine.py, snapshot.py, inspect.py, the checks and, for the layout, by all kernels.
"""

from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from smrx.engine.memory import (
    CACHE_LINE,
    RESERVED_RECORDS,
    SMALL_RECORDS,
    aligned_zeros,
    extended,
    growing_zeros,
    room_of,
    with_room,
)
from smrx.wire.records import CAPACITIES, DEFAULT_ANSWERS, MAX_CAPACITY, MAX_KEPT_ANSWERS, ORDER_DETAILS, as_words

#: Hashes after the last so many commands are kept; a power of two.
RING_SIZE: Final = 1 << 16

#: The first version of the rules.
FIRST_RULES: Final = 1

#: An engine time after all others.
NEVER: Final = (1 << 63) - 1


def _padded(fields: list[tuple[str, str]], size: int) -> "np.dtype[np.void]":
    """A record without gaps between its fields, padded to a size."""
    packed = np.dtype(fields)
    names = list(packed.names or ())
    places = [packed.fields[name] for name in names] if packed.fields else []
    formats = [place[0] for place in places]
    return np.dtype({"names": names, "formats": formats, "offsets": [place[1] for place in places], "itemsize": size})


def _with_links(layout: "np.dtype[Any]", **offsets: int) -> "np.dtype[np.void]":
    """Return a layout with u4 fields at some offsets in place of its reserved ones."""
    assert layout.fields is not None
    fields = {name: (field[0], field[1]) for name, field in layout.fields.items() if not name.startswith("reserved")}
    fields |= {name: (np.dtype("<u4"), offset) for name, offset in offsets.items()}
    forms, places = zip(*fields.values(), strict=True)
    return np.dtype({"names": list(fields), "formats": forms, "offsets": places, "itemsize": layout.itemsize})


#: The counters and switches of the engine; one record.
CORE: Final = np.dtype(
    [
        ("command_sequence", "<u8"),
        ("event_sequence", "<u8"),
        ("match_sequence", "<u8"),
        ("time_ns", "<i8"),
        ("state_hash", "<u8"),
        ("digest", "<u8"),  # sum of the hashes of all live records: the content hash without the counters
        ("next_expiry", "<i8"),  # engine time at which the first GTD order expires; NEVER if there is none
        ("expiring", "<u4"),  # GTD orders in the heap
        ("killed", "u1"),
        ("hashing", "u1"),
        ("ledger", "u1"),
        ("reporting", "u1"),
        # Nothing ends before these times: sessions by silence, transfer ids by age or number; see retention.py.
        ("next_session_end", "<i8"),
        ("next_transfer_end", "<i8"),
        ("activity", "<u8"),  # counts when a session's silence begins again
        ("transfers", "<u8"),  # what SET_RETENTION sets
        ("session_silence_s", "<u4"),
        ("transfer_age_s", "<u4"),
        ("oldest_session", "<u4"),  # sessions in order of their last activity
        ("newest_session", "<u4"),
        ("oldest_transfer", "<u4"),
        ("newest_transfer", "<u4"),
        ("answers_top", "<u4"),  # first record of the answers that belongs to no run
        ("rules_version", "<u4"),  # of the rules that apply, see kernels/rules_version.py
        ("unused", "<u4"),
        ("balance_sum", "<u8"),  # the part of the digest of balances
        ("empty_sum", "<u8"),  # the part of that of balances that are zero, and the number of the others
        ("funded_balances", "<u8"),
        ("kept_answers", "<u8"),  # the sum of the lengths of the sessions' runs
        *((f"max_{name}", "<u4") for name in CAPACITIES),  # what SET_CAPACITY sets
    ]
)
#: Until SET_RETENTION: a day, a week, a million transfers.
DEFAULT_SESSION_SILENCE_S: Final = 86_400
DEFAULT_TRANSFER_AGE_S: Final = 7 * 86_400
DEFAULT_TRANSFERS: Final = 1_000_000
#: Until SET_CAPACITY, by field of the core.
DEFAULT_CAPACITIES: Final = {
    f"max_{name}": MAX_KEPT_ANSWERS if name == "answers" else MAX_CAPACITY for name in CAPACITIES
}

#: The working record of the command that is being applied: what its steps pass to each other. It has no meaning between
#: calls, except for a command that waits for a larger buffer or table (see apply.py). The slots at the end are those of
#: the records that the command's checks found.
TURN: Final = np.dtype(
    [
        ("written", "<i8"),  # events in the buffer
        ("first", "<i8"),  # number of the command's first event in the buffer
        ("needed", "<i8"),  # events that the next step may need
        ("fit", "<i8"),  # commands that fit into all tables
        ("given", "<i8"),  # what a taker pays and receives, and the fees of both sides
        ("got", "<i8"),
        ("fees", "<i8"),
        ("client_order_id", "<u8"),  # the 64-bit form of the command's client order id
        (
            "credential",
            "<u8",
        ),  # who causes the events, see emit.py; a whole word, so that one store sets it
        ("content", "<u8"),  # of the request, see answers.py
        ("expiries", "<i8"),  # orders that may still expire with the command
        ("stage", "<u4"),  # progress of the command, see apply.py
        ("elected", "<u4"),  # first of the elected stops that are not triggered yet
        ("last_elected", "<u4"),
        ("session", "<u4"),
        ("account", "<u4"),
        ("instrument", "<u4"),
        ("asset", "<u4"),
        ("order", "<u4"),
        ("balance", "<u4"),
        ("following", "<u4"),  # events that the command's own event is followed by, see emit.py
        ("counted", "<u4"),  # whether the command counts as a request: then its outcome is kept
        ("ended", "<u4"),  # sessions that the command ended or found with open orders, and transfer ids it forgot
        ("forgotten", "<u4"),
        ("answers", "<u4"),  # records of the answers that an OPEN_SESSION waits for
    ]
)

#: The use of a table: the head of its free list, the first slot never used, the number of live records.
POOL: Final = np.dtype([("free", "<u4"), ("top", "<u4"), ("live", "<u4")])

SESSION: Final = _padded(
    [
        ("session_id", "<u8"),
        ("last_request_id", "<u8"),
        ("hash", "<u8"),  # the sum of the next two
        ("static_hash", "<u8"),  # the part that no request changes by itself
        ("chain", "<u8"),  # of its answers, see answers.py
        ("last_active_ns", "<i8"),  # engine time at which its silence began
        ("account_id", "<u4"),
        ("account", "<u4"),
        ("answers", "<u4"),  # first record of its run, see answers.py
        ("run", "u1"),  # log2 of the length of that: how many answers it keeps
        ("flags", "u1"),
        ("closed", "u1"),
        ("live", "u1"),
        ("activity", "<u8"),  # core.activity when its silence began: the order of sessions of one time
        ("orders", "<u4"),  # open orders that are cancelled with the session
        ("older", "<u4"),  # in the order of last activity
        ("newer", "<u4"),
        ("next", "<u4"),
        ("credential_id", "<u4"),  # that it was opened with; 0 without one
        ("credential", "<u4"),
    ],
    2 * CACHE_LINE,
)

#: The outcome of a request, with a hash in place of the session id; see answers.py.
ANSWER: Final = np.dtype(
    [
        ("status", "u1"),
        ("event_kind", "u1"),
        ("reason", "<u2"),
        ("event_count", "<u4"),
        ("before", "<u8"),  # the session's chain before it
        ("request_id", "<u8"),  # plus the content of the request: the id itself follows from the place
        ("sequence", "<u8"),
        ("order_id", "<u8"),
        ("first_event", "<u8"),
        ("cum_lots", "<i8"),
        ("leaves_lots", "<i8"),
    ]
)
#: Lengths of runs of answers: the powers of two up to MAX_ANSWERS.
RUN_LENGTHS: Final = 17

ACCOUNT: Final = np.dtype(
    [
        ("hash", "<u8"),
        ("max_open_notional", "<i8"),  # limits; 0 is none
        ("max_order_notional", "<i8"),
        ("max_order_quantity", "<i8"),
        ("max_open_orders", "<u4"),
        ("account_id", "<u4"),
        ("status", "<u4"),
        ("first", "<u4"),  # open orders, oldest first
        ("last", "<u4"),
        ("orders", "<u4"),
        ("firm", "<u4"),  # 0 is none
        ("live", "<u4"),
    ]
)

#: What a public key may do. A credential is never removed, so its slot is its for good.
CREDENTIAL: Final = _padded(
    [
        ("hash", "<u8"),
        ("expires_ns", "<i8"),  # engine time from which on it is not accepted; 0 for never
        ("credential_id", "<u4"),
        ("permissions", "<u4"),
        ("subject", "<u4"),  # account or firm
        ("prefixes", "<u4"),  # four of a byte, see CREDENTIAL_DETAILS
        ("scope", "<u2"),
        ("revoked", "<u2"),
        ("live", "<u4"),
        ("key_form", "<u8"),  # xxh3 of the key: what the index finds
        *((f"key_{at}", "<u8") for at in range(4)),
        *((f"networks_{at}", "<u8") for at in range(8)),
    ],
    3 * CACHE_LINE,
)

ASSET: Final = np.dtype(
    [
        ("symbol_0", "<u8"),
        ("symbol_1", "<u8"),
        ("supply", "<i8"),
        ("cap", "<i8"),  # supply cap; 0 is the general limit
        ("hash", "<u8"),
        ("asset_id", "<u4"),
        ("decimals", "<u4"),
        ("next", "<u4"),
        ("live", "<u4"),
    ]
)

INSTRUMENT: Final = _padded(
    [
        ("symbol_0", "<u8"),
        ("symbol_1", "<u8"),
        ("symbol_2", "<u8"),
        ("max_price", "<i8"),
        ("max_quantity", "<i8"),
        ("min_price", "<i8"),  # rules; 0 is none
        ("min_quantity", "<i8"),
        ("min_notional", "<i8"),
        ("max_notional", "<i8"),
        ("taker_fee", "<i8"),
        ("maker_fee", "<i8"),
        ("band_bp", "<i8"),
        ("collar_bp", "<i8"),
        ("last_price", "<i8"),  # of the last trade; 0 before the first
        ("hash", "<u8"),
        ("static_hash", "<u8"),  # the part of the hash that no trade changes
        ("instrument_id", "<u4"),
        ("base_id", "<u4"),
        ("quote_id", "<u4"),
        ("lot_units", "<u4"),
        ("scale_units", "<u4"),
        ("status", "<u4"),
        ("collar_reference", "<u4"),
        ("rule_flags", "<u4"),
        ("fee_balance", "<u4"),  # the venue's balance for fees; 0 until there are fees
        ("next", "<u4"),
        ("live", "<u4"),
    ],
    3 * CACHE_LINE,
)

#: The books of an instrument: number 4 * instrument slot for bids, then asks, sell stops and buy stops. In a book with
#: the low bit set a lower price is better.
BOOKS: Final = 4
BOOK: Final = _padded(
    [
        ("best", "<u4"),  # level
        ("root", "<u4"),  # reference into the price tree, see book.py
        ("orders", "<u4"),
        ("levels", "<u4"),
        ("icebergs", "<u4"),  # orders that show a part of their lots
    ],
    CACHE_LINE // 2,
)

LEVEL: Final = _padded(
    [
        ("price", "<i8"),
        ("quantity", "<i8"),  # sum of what its orders show
        ("orders", "<u4"),
        ("first", "<u4"),
        ("last", "<u4"),
        ("better", "<u4"),  # neighbours in price; better is nearer to the best
        ("worse", "<u4"),
        ("book", "<u4"),
        ("parent", "<u4"),  # node of the price tree
        ("next", "<u4"),
        ("live", "<u4"),
    ],
    CACHE_LINE,
)

NODE: Final = _padded(
    [("bit", "<u8"), ("zero", "<u4"), ("one", "<u4"), ("parent", "<u4"), ("next", "<u4"), ("live", "<u4")],
    CACHE_LINE // 2,
)

ORDER: Final = _padded(
    [
        ("order_id", "<u8"),
        ("client_order_id", "<u8"),  # its 64-bit form, see client_order_ids.py
        ("price", "<i8"),
        ("quantity", "<i8"),
        ("cum", "<i8"),
        ("priority", "<u8"),
        ("hash", "<u8"),
        ("shown", "<i8"),  # lots of an iceberg that the book shows
        ("account_id", "<u4"),
        ("instrument_id", "<u4"),
        ("account", "<u4"),
        ("instrument", "<u4"),
        ("level", "<u4"),
        ("before", "<u4"),  # in the level's queue
        ("next", "<u4"),
        ("older", "<u4"),  # in the account's list
        ("newer", "<u4"),
        ("gives", "<u4"),  # slot of the balance it holds funds in
        ("takes", "<u4"),  # slot of the balance it is paid into
        ("details", "<u4"),  # slot of its details; 0 for an order without
        ("place", "<u4"),  # of a GTD order in the expiry heap
        ("session", "<u4"),  # slot of the session whose end cancels it; 0 for none
        ("side", "u1"),
        ("order_type", "u1"),
        ("tif", "u1"),
        ("stp", "u1"),
        ("flags", "u1"),
        ("live", "u1"),
    ],
    2 * CACHE_LINE,
)

#: What few orders have: a client order id of more than 8 characters, as words, and terms. The fields of ORDER_DETAILS,
#: at the same places; a record has at least one that is not 0, and belongs to one order.
OPEN_ORDER_DETAILS: Final = _with_links(as_words(ORDER_DETAILS), next=120, live=124)

#: A balance that was reserved for an order and never paid into is not live: it has no hash.
BALANCE: Final = _padded(
    [
        ("available", "<i8"),
        ("held", "<i8"),
        ("open", "<i8"),  # notional of the account's open orders that are quoted in the asset, see balances.py
        ("hash", "<u8"),
        ("account_id", "<u4"),
        ("asset_id", "<u4"),
        ("open_wraps", "<u4"),
        ("next", "<u4"),
        ("live", "<u4"),
    ],
    CACHE_LINE,
)

TRANSFER: Final = _padded(
    [
        ("transfer_id", "<u8"),
        ("amount", "<i8"),
        ("hash", "<u8"),
        ("time_ns", "<i8"),
        ("sequence", "<u8"),  # of its command
        ("account_id", "<u4"),
        ("asset_id", "<u4"),
        ("kind", "<u4"),
        ("newer", "<u4"),  # the transfer after it
        ("next", "<u4"),
        ("live", "<u4"),
    ],
    CACHE_LINE,
)

#: The open orders that end with a session, oldest first: neighbours, and ends.
SESSION_LINK: Final = np.dtype([("older", "<u4"), ("newer", "<u4")])
SESSION_LIST: Final = np.dtype([("first", "<u4"), ("last", "<u4")])

#: One cell of an index; see hash_index.py. The header of an index array: the number of cells of the generation in use,
#: and the first slot that is not in the next one yet, 0 if there is none.
CELL: Final = np.dtype("<u8")
SIZE: Final = 0
MOVED: Final = 1
HEADER: Final = 2


class Table(NamedTuple):
    """A table that grows: its field in State, its records, how many of them one command may add, its indexes."""

    name: str
    dtype: Any
    per_command: int
    indexes: tuple[str, ...]


#: In the order of State.pools.
TABLES: Final = (
    Table("sessions", SESSION, 1, ("session_index",)),
    Table("accounts", ACCOUNT, 1, ("account_index",)),
    Table("assets", ASSET, 1, ("asset_index",)),
    Table("instruments", INSTRUMENT, 1, ("instrument_index",)),
    Table("levels", LEVEL, 1, ("level_index",)),
    Table("nodes", NODE, 1, ()),
    Table("orders", ORDER, 1, ("order_index", "client_index")),
    Table("order_details", OPEN_ORDER_DETAILS, 1, ()),
    # A market buy may come from an account without a balance in either asset.
    Table("balances", BALANCE, 2, ("balance_index",)),
    Table("transfers", TRANSFER, 1, ("transfer_index",)),
    Table("credentials", CREDENTIAL, 1, ("credential_index", "key_index")),
)
(
    SESSIONS, ACCOUNTS, ASSETS, INSTRUMENTS, LEVELS, NODES, ORDERS, ORDER_DETAILS_TABLE, BALANCES, TRANSFERS,
    CREDENTIALS,
) = range(len(TABLES))  # fmt: skip


#: The index arrays.
INDEXES: Final = tuple(name for table in TABLES for name in table.indexes)


class State(NamedTuple):
    """The whole state. An index array holds cells; the others hold what they are named after."""

    core: NDArray[Any]
    turn: NDArray[Any]
    pools: NDArray[Any]
    sessions: NDArray[Any]
    session_index: NDArray[Any]
    accounts: NDArray[Any]
    account_index: NDArray[Any]
    assets: NDArray[Any]
    asset_index: NDArray[Any]
    instruments: NDArray[Any]
    instrument_index: NDArray[Any]
    books: NDArray[Any]
    levels: NDArray[Any]
    level_index: NDArray[Any]
    nodes: NDArray[Any]
    orders: NDArray[Any]
    order_index: NDArray[Any]
    client_index: NDArray[Any]
    order_details: NDArray[Any]
    balances: NDArray[Any]
    balance_index: NDArray[Any]
    transfers: NDArray[Any]
    transfer_index: NDArray[Any]
    credentials: NDArray[Any]
    credential_index: NDArray[Any]
    key_index: NDArray[Any]
    transfer_links: NDArray[Any]
    last_transfers: NDArray[Any]
    answers: NDArray[Any]
    runs: NDArray[Any]
    heap: NDArray[Any]
    session_links: NDArray[Any]
    session_lists: NDArray[Any]
    ring: NDArray[Any]


_SLOT: Final = np.dtype("<u4")
FIXED: Final = {
    "core": CORE,
    "turn": TURN,
    "pools": POOL,
    "books": BOOK,
    "answers": ANSWER,  # runs of them, see answers.py; the first is at 1
    "runs": _SLOT,  # first records of the free runs of each length: powers of two
    "transfer_links": _SLOT,  # by slot of a transfer: the account's one before it, see retention.py
    "last_transfers": _SLOT,  # by slot of an account: its newest transfer
    "heap": _SLOT,  # slots of GTD orders, see expiry_heap.py; the first is at 1
    "session_links": SESSION_LINK,  # by slot of an order
    "session_lists": SESSION_LIST,  # by slot of a session
    "ring": np.dtype("<u8"),
}
#: The records that large arrays have address space for, where it is more than RESERVED_RECORDS: more than capacities
#: allow.
_RESERVED: Final = {"answers": 1 << 26, "books": BOOKS * RESERVED_RECORDS}
#: Arrays that are as long as a table.
_BESIDE: Final = {
    "heap": "orders", "session_links": "orders", "session_lists": "sessions", "transfer_links": "transfers",
    "last_transfers": "accounts",
}  # fmt: skip
#: The record of every array of State, in its order.
DTYPES: Final = {
    name: FIXED[name]
    if name in FIXED
    else CELL
    if name.endswith("_index")
    else next(table.dtype for table in TABLES if table.name == name)
    for name in State._fields
}


def index_size(capacity: int) -> int:
    """Return the number of cells of a table's index: a power of two, at most a quarter of them used."""
    return 1 << max(3, (4 * capacity - 1).bit_length())


def generation(array: NDArray[Any], size: int) -> NDArray[Any]:
    """Return the generation of an index that has so many cells."""
    return array[size : 2 * size]


def in_use(array: NDArray[Any]) -> NDArray[Any]:
    """Return the generation of an index that searches use."""
    return generation(array, int(array[SIZE]))


def empty_index(capacity: int) -> NDArray[Any]:
    """Return the index of an empty table, with space for larger generations if the table is large (hash_index.py)."""
    size = index_size(capacity)
    largest = size if capacity <= SMALL_RECORDS else max(size, index_size(RESERVED_RECORDS))
    cells = aligned_zeros(2 * size, CELL, 2 * largest)
    if 2 * largest <= room_of(cells):
        cells = extended(cells, 2 * largest, CELL)
    cells[SIZE] = size
    return cells


def allocate(capacities: dict[str, int], answers: int = 0) -> State:
    """Return a state without records, with space for so many records in each table and at least so many answers."""
    arrays = {
        "core": aligned_zeros(1, CORE),
        "turn": aligned_zeros(1, TURN),
        "pools": aligned_zeros(len(TABLES), POOL),
        "books": growing_zeros(BOOKS * (capacities["instruments"] + 1), BOOK, _RESERVED["books"]),
        "ring": aligned_zeros(RING_SIZE, FIXED["ring"]),
        "answers": growing_zeros(
            max(answers, DEFAULT_ANSWERS * capacities["sessions"]) + 1, ANSWER, _RESERVED["answers"]
        ),
        "runs": aligned_zeros(RUN_LENGTHS, FIXED["runs"]),
    }
    for table in TABLES:
        capacity = max(capacities[table.name], table.per_command)
        arrays[table.name] = growing_zeros(capacity + 1, table.dtype)
        arrays |= {name: empty_index(capacity) for name in table.indexes}
    arrays |= {name: growing_zeros(len(arrays[table]), FIXED[name]) for name, table in _BESIDE.items()}
    arrays["pools"]["top"] = 1
    core = arrays["core"]
    for name in ("next_expiry", "next_session_end", "next_transfer_end"):
        core[name] = NEVER
    core["session_silence_s"] = DEFAULT_SESSION_SILENCE_S
    core["transfer_age_s"] = DEFAULT_TRANSFER_AGE_S
    core["transfers"] = DEFAULT_TRANSFERS
    for name, value in DEFAULT_CAPACITIES.items():
        core[name] = value
    core["answers_top"] = 1
    core["rules_version"] = FIRST_RULES
    return State(**arrays)


def records_left(state: State, number: int) -> int:
    """Return how many more records the table with this number can take."""
    table = TABLES[number]
    return len(getattr(state, table.name)) - 1 - int(state.pools["live"][number])


def growing_memory(state: State) -> list[tuple[int, NDArray[np.uint8], int]]:
    """Return the arrays that are filled from their start on, those that have address space.

    Each as the number of its table, whose top says how many records are in use, its bytes with their space, and the
    size of a record.
    """
    numbers = {table.name: number for number, table in enumerate(TABLES)}
    found = [(name, name) for name in numbers] + [(name, of) for name, of in _BESIDE.items() if name != "heap"]
    arrays = [(numbers[of], getattr(state, name)) for name, of in found]
    return [
        (number, with_room(array), array.itemsize) for number, array in arrays if room_of(array) > 2 * SMALL_RECORDS
    ]


def _larger(size: int, reserved: int) -> int:
    """Return the size to which a full table grows: twice as large, but no larger than its address space allows."""
    return min(2 * size, reserved) if size < reserved else 2 * size


class Grown(NamedTuple):
    """A state with larger tables, and the indexes that are to be made larger: (number of the table, index, cells)."""

    state: State
    indexes: tuple[tuple[int, str, int], ...]


def grow(state: State) -> Grown:
    """Make every full table larger, as a longer view of its memory where there is room.

    An index that has space for a larger generation is returned as one to be made larger; one that has not is replaced
    by an empty one.
    """
    arrays: dict[str, NDArray[Any]] = {}
    indexes: list[tuple[int, str, int]] = []
    for number, table in enumerate(TABLES):
        if records_left(state, number) < table.per_command:
            old = getattr(state, table.name)
            capacity = _larger(len(old) - 1, RESERVED_RECORDS)
            arrays[table.name] = extended(old, capacity + 1, table.dtype)
            size = index_size(capacity)
            for name in table.indexes if size != index_size(len(old) - 1) else ():
                if 2 * size <= len(getattr(state, name)):
                    indexes.append((number, name, size))
                else:
                    arrays[name] = empty_index(capacity)
            if number == INSTRUMENTS:
                arrays["books"] = extended(state.books, BOOKS * (capacity + 1), BOOK, _RESERVED["books"])
            for name in (name for name, of in _BESIDE.items() if of == table.name):
                arrays[name] = extended(getattr(state, name), capacity + 1, FIXED[name])
    top = int(state.core["answers_top"][0]) + int(state.turn["answers"][0])
    if top > len(state.answers):
        length = max(top, _larger(len(state.answers), _RESERVED["answers"]))
        arrays["answers"] = extended(state.answers, length, ANSWER, _RESERVED["answers"])
    return Grown(state._replace(**arrays), tuple(indexes))
