"""What must always hold, asked of the oracle's own state: a reference that breaks its rules proves nothing."""

from collections import Counter

from smrx.engine.codes import Side
from tests.oracle.state import State


def violations(state: State) -> list[str]:
    """One sentence for each broken rule; empty when all is well."""
    return [*book_violations(state), *order_violations(state), *money_violations(state)]


def book_violations(state: State) -> list[str]:
    found = []
    for instrument, book in state.books.items():
        bid, ask = book.best_price(Side.BUY), book.best_price(Side.SELL)
        if bid is not None and ask is not None and bid >= ask:
            found.append(f"instrument {instrument}: crossed, bid {bid} and ask {ask}")
        for side in (Side.BUY, Side.SELL):
            for price, queue in book.queues[side].items():
                ids = [order.order_id for order in queue]
                if not ids or ids != sorted(ids):
                    found.append(f"instrument {instrument}: {side.name} queue at {price} out of order: {ids}")
    return found


def order_violations(state: State) -> list[str]:
    found = []
    resting = {
        order.order_id
        for book in state.books.values()
        for queues in book.queues.values()
        for queue in queues.values()
        for order in queue
    }
    if resting != set(state.orders):
        found.append(f"orders open but not in a book, or the other way: {sorted(resting ^ set(state.orders))}")
    found += [
        f"order {order.order_id}: filled {order.cum} of {order.quantity}, yet open"
        for order in state.orders.values()
        if not 0 <= order.cum < order.quantity
    ]
    names = Counter((order.account, order.client_order_id) for order in state.orders.values() if order.client_order_id)
    found += [f"account {name[0]}: client order id {name[1]} open {n} times" for name, n in names.items() if n > 1]
    return found


def money_violations(state: State) -> list[str]:
    found = []
    totals: Counter[int] = Counter()
    held: Counter[tuple[int, int]] = Counter()
    for order in state.orders.values():
        asset, amount = state.hold(order.side, state.instruments[order.instrument], order.price, order.leaves)
        held[order.account, asset] += amount
    for key, balance in state.balances.items():
        totals[balance.asset] += balance.available + balance.held
        if balance.available < 0 or balance.held < 0:
            found.append(f"account {key[0]} asset {key[1]}: below zero: {balance.available}, {balance.held}")
        if balance.held != held[key]:
            found.append(f"account {key[0]} asset {key[1]}: holds {balance.held}, its orders need {held[key]}")
    found += [
        f"asset {asset.asset}: supply {asset.supply}, balances {totals[asset.asset]}"
        for asset in state.assets.values()
        if asset.supply != totals[asset.asset]
    ]
    return found
