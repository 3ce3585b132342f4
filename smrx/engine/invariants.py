"""What must always hold, checked from the outside with plain NumPy.

`broken` returns one sentence for each thing that does not hold, none if all is well. It never changes the state and
shares no code with the kernels, but for the layout and the keys of indexes. Used by tests, the simulator, `smrx verify`
and, before it accepts foreign bytes, by restore.
"""

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np

from .codes import InstrumentStatus, OrderType
from .indexes import keys_of, members
from .rehash import WORDS, name_of, record_hashes, static_hashes
from .soundness import Rows, heap, holds, icebergs, live_slots, open_notionals, sessions, statuses, stops, used, visible
from .state import BALANCES, BOOKS, LEVELS, NODES, TABLES, State

#: Fields that hold a slot, and the table they point into.
LINKS = {
    "sessions": {"account": "accounts"},
    "accounts": {"first": "orders", "last": "orders"},
    "levels": {"first": "orders", "last": "orders", "better": "levels", "worse": "levels"},
    "orders": {
        "account": "accounts", "instrument": "instruments", "level": "levels", "before": "orders", "next": "orders",
        "older": "orders", "newer": "orders", "gives": "balances", "takes": "balances", "session": "sessions",
    },
    "instruments": {"fee_balance": "balances"},
}  # fmt: skip
#: Links that a live record may not lack; and those that it may not lack where there is a ledger.
REQUIRED = {"account", "instrument", "level"}
PAYING = {"gives", "takes"}
_LEAF = 1 << 31


def broken(state: State) -> list[str]:
    """Everything that does not hold. Where links lead astray nothing that follows links is checked."""
    astray = list(pools_astray(state)) or list(links_astray(state))
    if astray:
        return astray
    found: list[str] = []
    for part in (queues, account_lists, price_order, trees, indexes, icebergs, stops, heap, sessions, statuses, money):
        found += part(state)
    if state.core["ledger"][0]:
        found += [*holds(state), *open_notionals(state)]
    return [*found, *hashes(state)] if state.core["hashing"][0] else found


def pools_astray(state: State) -> Iterator[str]:
    """Every slot ever used is either live or on the free list, once."""
    for number, table in enumerate(TABLES):
        pool = state.pools[number]
        rows = getattr(state, table.name)
        top = int(pool["top"])
        if not 1 <= top <= len(rows):
            yield f"{table.name}: {top - 1} slots used of {len(rows) - 1}"
            continue
        if rows[0].tobytes().strip(b"\0"):
            yield f"{table.name}: slot 0 is not empty"
        free: set[int] = set()
        slot = int(pool["free"])
        while slot and slot < top and slot not in free:
            free.add(slot)
            slot = int(rows["next"][slot])
        if slot:
            yield f"{table.name}: the free list does not end"
        live = np.flatnonzero(rows["live"][:top] != 0)
        if len(free) + int(pool["live"]) != top - 1:
            yield f"{table.name}: {len(free)} free and {int(pool['live'])} live slots of {top - 1}"
        if number != BALANCES and len(live) != int(pool["live"]):
            yield f"{table.name}: {len(live)} live records, {int(pool['live'])} counted"
        if free.intersection(live.tolist()):
            yield f"{table.name}: a live record is on the free list"


def links_astray(state: State) -> Iterator[str]:
    """Links of live records lead to live records; books to live levels."""
    required = REQUIRED | PAYING if state.core["ledger"][0] else REQUIRED
    for table, links in LINKS.items():
        rows = used(state, table)[live_slots(state, table)]
        for field, target in links.items():
            if not _lead_to_live(state, rows[field], target, field in required):
                yield f"{table}: a {field} leads astray"
    if not _lead_to_live(state, state.books["best"], "levels", False):
        yield "books: a best level leads astray"
    levels = used(state, "levels")[live_slots(state, "levels")]
    if (levels["book"] >= len(state.books)).any():
        yield "levels: a book leads astray"


def _lead_to_live(state: State, slots: Any, target: str, required: bool) -> bool:
    rows = used(state, target)
    if required and not slots.all():
        return False
    slots = slots[slots != 0]
    if not (slots < len(rows)).all():
        return False
    # Balances that were never paid into are not live and yet an order's.
    return target == "balances" or bool((rows["live"][slots] != 0).all())


def queues(state: State) -> Iterator[str]:
    """A level's quantity and count are the sums over its queue, which is in order of priority."""
    orders, slots = used(state, "orders"), live_slots(state, "orders")
    levels, level_slots = used(state, "levels"), live_slots(state, "levels")
    mine = orders[slots]
    counts = np.bincount(mine["level"], minlength=len(levels))
    if (counts[level_slots] != levels["orders"][level_slots]).any() or not levels["orders"][level_slots].all():
        yield "levels: an order count is not that of the queue"
    sums = np.zeros(len(levels), dtype=np.int64)
    np.add.at(sums, mine["level"], visible(mine))
    if (sums[level_slots] != levels["quantity"][level_slots]).any():
        yield "levels: a quantity is not that of the queue"
    if (mine["cum"] < 0).any() or (mine["cum"] >= mine["quantity"]).any():
        yield "orders: an open order has no lots left"
    if (mine["order_id"] > state.core["command_sequence"][0]).any():
        yield "orders: one is newer than the last command"
    home = levels[mine["level"]]
    pending = mine["order_type"] >= OrderType.STOP
    side = mine["side"].astype(np.int64)
    book = BOOKS * mine["instrument"].astype(np.int64) + np.where(pending, 4 - side, side - 1)
    price = np.where(pending, mine["extra"].astype(np.int64), mine["price"])
    if (home["price"] != price).any() or (home["book"] != book).any():
        yield "orders: an order is at another price or in another book"
    if not _chained(orders, slots, "next", "before", "level", "priority"):
        yield "orders: a queue is not linked in order of priority"
    if not _ends(orders, slots, levels, level_slots, "next", "before", "level"):
        yield "levels: the ends of a queue are not those of its orders"


def account_lists(state: State) -> Iterator[str]:
    """Every open order is in the list of its account, oldest first."""
    orders, slots = used(state, "orders"), live_slots(state, "orders")
    accounts, account_slots = used(state, "accounts"), live_slots(state, "accounts")
    mine = orders[slots]
    counts = np.bincount(mine["account"], minlength=len(accounts))
    if (counts[account_slots] != accounts["orders"][account_slots]).any():
        yield "accounts: a count of open orders is not that of the orders"
    if (accounts["account_id"][mine["account"]] != mine["account_id"]).any():
        yield "orders: an order is linked to another account"
    if not _chained(orders, slots, "newer", "older", "account", "order_id"):
        yield "orders: an account's list is not linked oldest first"
    if not _ends(orders, slots, accounts, account_slots, "newer", "older", "account"):
        yield "accounts: the ends of a list are not those of its orders"


def _chained(rows: Rows, slots: Any, ahead: str, back: str, owner: str, key: str) -> bool:
    """Links ahead and back agree, stay with one owner and rise in the key; so there is no circle."""
    following = rows[ahead][slots]
    here, there = slots[following != 0], following[following != 0]
    preceding = rows[back][slots]
    return bool(
        (rows[back][there] == here).all()
        and (rows[owner][there] == rows[owner][here]).all()
        and (rows[key][there] > rows[key][here]).all()
        and (rows[ahead][preceding[preceding != 0]] == slots[preceding != 0]).all()
    )


def _ends(rows: Rows, slots: Any, owners: Rows, owner_slots: Any, ahead: str, back: str, owner: str) -> bool:
    """Each owner's first and last are its only records without one before or behind."""
    for link, end in ((back, "first"), (ahead, "last")):
        outermost = slots[rows[link][slots] == 0]
        expected = np.zeros(len(owners), dtype=np.uint32)
        expected[rows[owner][outermost]] = outermost
        if len(np.unique(rows[owner][outermost])) != len(outermost):
            return False
        if (owners[end][owner_slots] != expected[owner_slots]).any():
            return False
    return True


def price_order(state: State) -> Iterator[str]:
    """The levels of a book are linked from the best on, by falling bids and rising asks; no book is crossed."""
    levels, slots = used(state, "levels"), live_slots(state, "levels")
    worse = levels["worse"][slots]
    here, there = slots[worse != 0], worse[worse != 0]
    asks = levels["book"][here] % 2 == 1
    falls = np.where(
        asks, levels["price"][there] > levels["price"][here], levels["price"][there] < levels["price"][here]
    )
    linked = (levels["better"][there] == here).all() and (levels["book"][there] == levels["book"][here]).all()
    if not linked or not falls.all():
        yield "levels: neighbours are not in order of price"
    best = np.zeros(len(state.books), dtype=np.uint32)
    first = slots[levels["better"][slots] == 0]
    best[levels["book"][first]] = first
    if len(np.unique(levels["book"][first])) != len(first) or (best != state.books["best"]).any():
        yield "books: the best level is not the one that has none before it"
    if (np.bincount(levels["book"][slots], minlength=len(state.books)) != state.books["levels"]).any():
        yield "books: a count of levels is not that of the levels"
    per_book = np.zeros(len(state.books), dtype=np.int64)
    np.add.at(per_book, levels["book"][slots], levels["orders"][slots].astype(np.int64))
    if (per_book != state.books["orders"]).any():
        yield "books: a count of orders is not that of the levels"
    trading = used(state, "instruments")["status"] == InstrumentStatus.TRADING
    bids, asks = (state.books["best"][side::BOOKS][: len(trading)] for side in (0, 1))
    crossed = trading & (bids != 0) & (asks != 0) & (levels["price"][bids] >= levels["price"][asks])
    yield from (f"books: the book of instrument slot {slot} is crossed" for slot in np.flatnonzero(crossed))


def trees(state: State) -> Iterator[str]:
    """A price leads through the tree of its book to its level, by as many nodes as there are levels less one."""
    levels, nodes = used(state, "levels"), used(state, "nodes")
    for book, row in enumerate(state.books):
        stack: list[tuple[int, int, int]] = [(int(row["root"]), 0, 1 << 64)] if row["root"] else []
        leaves: list[int] = []
        steps = 0
        while stack and steps <= 2 * int(row["levels"]):
            steps += 1
            reference, parent, bit = stack.pop()
            if reference & _LEAF:
                slot = reference & (_LEAF - 1)
                if slot >= len(levels) or int(levels["parent"][slot]) != parent or int(levels["book"][slot]) != book:
                    yield f"levels: a leaf of book {book} leads astray"
                    break
                leaves.append(slot)
                continue
            if not 0 < reference < len(nodes) or not nodes["live"][reference]:
                yield f"nodes: a branch of book {book} leads astray"
                break
            node = nodes[reference]
            if int(node["parent"]) != parent or int(node["bit"]) >= bit:
                yield f"nodes: a node of book {book} has the wrong parent or bit"
                break
            # The lower branch last on the stack, so that leaves come out by rising price.
            stack.append((int(node["one"]), reference, int(node["bit"])))
            stack.append((int(node["zero"]), reference, int(node["bit"])))
        prices = [int(levels["price"][slot]) for slot in leaves]
        if len(leaves) != int(row["levels"]) or any(low >= high for low, high in pairwise(prices)):
            yield f"nodes: the tree of book {book} does not have its levels in order of price"
    rooted = np.count_nonzero(state.books["root"])
    if int(state.pools["live"][NODES]) != int(state.pools["live"][LEVELS]) - rooted:
        yield "nodes: there are more or fewer than the levels need"


def indexes(state: State) -> Iterator[str]:
    """Every id in an index is that of a live record, and every live record is found by its id."""
    for number, table in enumerate(TABLES):
        for index in table.indexes:
            cells = getattr(state, index)
            slots = members(state, number, index)
            filled = np.flatnonzero(cells["slot"] != 0)
            keys, extras = keys_of(index, getattr(state, table.name)[slots])
            expected = sorted(zip(keys.tolist(), extras.tolist(), slots.tolist(), strict=True))
            rows = cells[filled]
            found = sorted(zip(rows["key"].tolist(), rows["extra"].tolist(), rows["slot"].tolist(), strict=True))
            if expected != found:
                yield f"{index}: it does not have the live {table.name}"
            elif len({entry[:2] for entry in found}) != len(found):
                yield f"{index}: a key is there twice"
            elif not _reachable(cells, filled):
                yield f"{index}: a search stops before it finds its key"


def _reachable(cells: Rows, filled: Any) -> bool:
    """Between the cell where the search for a key begins and the one where the key is, no cell is empty."""
    size = len(cells)
    with np.errstate(over="ignore"):
        word = cells["extra"][filled].astype(np.uint64) * np.uint64(0xD6E8FEB86659FD93)
        word = _folded(cells["key"][filled] ^ word, 0x9E3779B97F4A7C15)
    begin = (word & np.uint64(size - 1)).astype(np.int64)
    # Filled cells up to and without a position, over the table twice so that a search may go over its end.
    up_to = np.concatenate([[0], np.cumsum(np.tile(cells["slot"] != 0, 2))])
    end = np.where(filled < begin, filled + size, filled)
    return bool((up_to[end] - up_to[begin] == end - begin).all())


def _folded(words: Any, factor: int) -> Any:
    """The low word of each 128-bit product, xor its high word: by halves, as NumPy has no such product."""
    half, low = np.uint64(32), np.uint64(0xFFFF_FFFF)
    upper, lower = words >> half, words & low
    above, below = np.uint64(factor >> 32), np.uint64(factor & 0xFFFF_FFFF)
    middle = upper * below + ((lower * below) >> half)
    across = lower * above + (middle & low)
    return (words * np.uint64(factor)) ^ (upper * above + (middle >> half) + (across >> half))


def money(state: State) -> Iterator[str]:
    """No balance is below 0; per asset, deposits less withdrawals are what the accounts have."""
    rows = used(state, "balances")
    if (rows["available"] < 0).any() or (rows["held"] < 0).any():
        yield "balances: one is below 0"
    idle = rows[rows["live"] == 0]
    if idle["available"].any() or idle["held"].any() or idle["hash"].any():
        yield "balances: one that is not live has money or a hash"
    assets = used(state, "assets")[live_slots(state, "assets")]
    for asset in assets:
        mine = rows[rows["asset_id"] == asset["asset_id"]]
        total = int(mine["available"].sum()) + int(mine["held"].sum())
        if total != int(asset["supply"]):
            yield f"asset {int(asset['asset_id'])}: accounts have {total} of a supply of {int(asset['supply'])}"


def hashes(state: State) -> Iterator[str]:
    """Each record's hash is kept beside it, and the digest is their sum."""
    total = np.zeros(1, dtype=np.uint64)
    for table in WORDS:
        rows = used(state, table)[live_slots(state, table)]
        fresh = record_hashes(state, table, rows)
        total += fresh.sum(dtype=np.uint64)
        yield from (f"{name_of(table, row)}: its hash is not the one kept" for row in rows[fresh != rows["hash"]][:1])
    instruments = used(state, "instruments")[live_slots(state, "instruments")]
    if (static_hashes(state, instruments) != instruments["static_hash"]).any():
        yield "instruments: the hash kept of what no trade changes is not its hash"
    if total[0] != state.core["digest"][0]:
        yield "the digest kept is not the digest of the records"
