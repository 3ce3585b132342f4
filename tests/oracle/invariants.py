"""Invariants of the oracle's own state: a reference that breaks its rules proves nothing."""

from collections import Counter

from smrx.wire.codes import InstrumentStatus, Side
from tests.oracle.state import State


def violations(state: State) -> list[str]:
    """Return one sentence for each violation."""
    return [*book_violations(state), *order_violations(state), *waiting_violations(state), *money_violations(state)]


def book_violations(state: State) -> list[str]:
    found = []
    for instrument, book in state.books.items():
        bid, ask = book.best_price(Side.BUY), book.best_price(Side.SELL)
        if bid is not None and ask is not None and bid >= ask:
            found.append(f"instrument {instrument}: crossed, bid {bid} and ask {ask}")
        for side in (Side.BUY, Side.SELL):
            for price, queue in book.queues[side].items():
                places = [order.priority for order in queue]
                if not places or places != sorted(set(places)):
                    found.append(f"instrument {instrument}: {side.name} queue at {price} out of order: {places}")
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
    open_orders = {order.order_id for order in state.orders.values() if not order.is_stop}
    if resting != open_orders:
        found.append(f"orders open but not in a book, or the reverse: {sorted(resting ^ open_orders)}")
    for order in state.orders.values():
        if not 0 <= order.cum < order.quantity:
            found.append(f"order {order.order_id}: filled {order.cum} of {order.quantity}, but open")
        hides = order.display and not order.is_stop
        if not (0 < order.shown <= min(order.display, order.leaves) if hides else order.shown == 0):
            found.append(f"order {order.order_id}: shows {order.shown} of {order.leaves}, display {order.display}")
    names = Counter((order.account, order.client_order_id) for order in state.orders.values() if order.client_order_id)
    found += [f"account {name[0]}: client order id {name[1]!r} open {n} times" for name, n in names.items() if n > 1]
    return found


def waiting_violations(state: State) -> list[str]:
    """Orders that should have ended: due stops, expired orders, orders of closed instruments and sessions."""
    found = [
        f"stop order {order.order_id}: its price is reached, but it is pending"
        for order in state.orders.values()
        if order.is_stop and state.is_due(order)
    ]
    found += [
        f"order {order.order_id}: its time has passed, but it is open"
        for order in state.orders.values()
        if order.expiry_ns is not None and order.expiry_ns <= state.time_ns and state.late_expiries <= 0
    ]
    found += [
        f"order {order.order_id}: open on a closed instrument"
        for order in state.orders.values()
        if state.instruments[order.instrument].status is InstrumentStatus.CLOSED
    ]
    found += [
        f"order {order.order_id}: its session {order.session_id} is closed"
        for order in state.orders.values()
        if order.session_id and order.session_id not in state.sessions
    ]
    return found


def money_violations(state: State) -> list[str]:
    found = []
    totals: Counter[int] = Counter()
    held: Counter[tuple[int, int]] = Counter()
    for order in state.orders.values():
        asset_id, amount = state.hold(order, order.leaves)
        held[order.account, asset_id] += amount
    for key, balance in state.balances.items():
        totals[balance.asset] += balance.available + balance.held
        if balance.available < 0 or balance.held < 0:
            found.append(f"account {key[0]} asset {key[1]}: negative: {balance.available}, {balance.held}")
        if balance.held != held[key]:
            found.append(f"account {key[0]} asset {key[1]}: holds {balance.held}, its orders need {held[key]}")
    for asset in state.assets.values():
        if asset.supply != totals[asset.asset]:
            found.append(f"asset {asset.asset}: supply {asset.supply}, balances {totals[asset.asset]}")
        if asset.supply > asset.max_supply:
            found.append(f"asset {asset.asset}: supply {asset.supply}, above its cap {asset.max_supply}")
    return found
