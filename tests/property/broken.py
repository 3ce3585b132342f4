"""Machines that are wrong on purpose, one bug each: what a comparison must notice to be worth its time."""

from collections import deque
from dataclasses import replace

from smrx.wire.codes import EventKind, OrderType, Reason, Side
from tests.oracle import Oracle
from tests.oracle.book import Book
from tests.oracle.messages import Command, Event, Outcome
from tests.oracle.records import Balance, Order
from tests.oracle.state import State


class NewestFirstBook(Book):
    def add(self, order: Order) -> None:
        super().add(order)
        self.queues[order.side][order.price].rotate(1)


class WorstPriceBook(Book):
    def prices(self, side: Side) -> list[int]:
        return super().prices(side)[::-1] if side is Side.SELL else super().prices(side)


class NewestFirst(Oracle):
    """Serves the newest order of a price first."""

    make_book = NewestFirstBook


class WorstPriceFirst(Oracle):
    """Sells the dearest offer first."""

    make_book = WorstPriceBook


class KeepsImprovement(Oracle):
    """Does not give back what a buyer saves."""

    def settle(self, order: Order, price: int, lots: int, own_fee: int) -> None:
        limit = order.price if order.side is Side.BUY and order.order_type is OrderType.LIMIT else price
        super().settle(order, max(limit, price), lots, own_fee)


class TradesWithItself(Oracle):
    """Lets an account trade with itself."""

    def is_self_trade(self, taker: Order, maker: Order) -> bool:
        return False


class LosesHolds(Oracle):
    """Never releases what a dead order held."""

    def release_hold(self, order: Order, lots: int) -> None:
        """Leave it held."""


class RestsImmediate(Oracle):
    """Lets the rest of an immediate-or-cancel order stand in the book."""

    def may_rest(self, order: Order) -> bool:
        return order.order_type is OrderType.LIMIT


class ForgetsRefusedRequests(Oracle):
    """Does not count the request id of a refused command, so that it may be sent again."""

    def reject(self, reason: Reason) -> Outcome:
        session = self.state.sessions.get(self.command.session_id)
        if session and session.last_request_id == self.command.request_id:
            session.last_request_id -= 1
        return super().reject(reason)


class TrustsTheClock(Oracle):
    """Lets time go back."""

    def apply_one(self, command: Command, stamp: int) -> tuple[Outcome, list[Event]]:
        self.state.time_ns = min(self.state.time_ns, stamp)
        return super().apply_one(command, stamp)


class CountsOwnOffers(Oracle):
    """Takes the account's own offers for liquidity when it looks whether a fill-or-kill order fills."""

    def __init__(self) -> None:
        super().__init__()
        self.state = OwnOffersState()


class OwnOffersState(State):
    def is_unfillable(self, order: Order) -> bool:
        return super().is_unfillable(replace(order, account=1 << 40))


class ForgetsTransfers(Oracle):
    """Does not remember transfers, so that one sent twice is done twice."""

    def deposit(self) -> Outcome:
        outcome = super().deposit()
        del self.state.transfers[self.command.order_id]
        return outcome


class DropsEmptyBalances(Oracle):
    """Forgets a balance that came down to nothing."""

    def withdraw(self) -> Outcome:
        outcome = super().withdraw()
        key = (self.command.account, self.command.instrument)
        if self.state.balances[key] == Balance(*key):
            del self.state.balances[key]
        return outcome


class WaivesRoundings(Oracle):
    """Rounds the venue's part of a fee down."""

    def credit(self, account: int, asset: int, amount: int) -> None:
        super().credit(account, asset, amount - (account == 0 and amount > 1))


class RefreshesInPlace(Oracle):
    """Lets an iceberg keep its place when it shows its next part."""

    def refresh(self, iceberg: Order, event_sequence: int) -> None:
        iceberg.shown = min(iceberg.display, iceberg.leaves)


class ForgetsPriority(Oracle):
    """Gives a refreshed iceberg its new place, and not the number that says so."""

    def refresh(self, iceberg: Order, event_sequence: int) -> None:
        super().refresh(iceberg, iceberg.priority)


class ShowsEverything(Oracle):
    """Lets a taker have the hidden lots of an iceberg at once."""

    def trade(self, taker: Order, maker: Order, lots: int) -> None:
        super().trade(taker, maker, lots if not maker.display else min(maker.leaves, max(lots, taker.leaves)))


class TriggersNearestFirst(Oracle):
    """Elects the stop first whose price the trade has passed by least."""

    def elect(self, instrument: int, elected: "tuple[()] | deque[Order]") -> list[Order]:
        return super().elect(instrument, elected)[::-1]


class StopsCascades(Oracle):
    """Does not look at what the trades of a triggered stop set off."""

    def trigger(self, order: Order) -> bool:
        super().trigger(order)
        return False


class TriggersLate(Oracle):
    """Looks for stops only where the command's own order is gone."""

    def trigger_stops(self, instrument: int) -> None:
        if self.state.sequence not in self.state.orders:
            super().trigger_stops(instrument)


class ExpiresLate(Oracle):
    """Ends an order a second after its time."""

    def expire_orders(self) -> None:
        self.state.time_ns -= 1_000_000_000
        super().expire_orders()
        self.state.time_ns += 1_000_000_000


class KeepsMakers(Oracle):
    """Where both should go, lets the maker stand."""

    def prevent_self_trade(self, taker: Order, maker: Order) -> bool:
        return True


class MovesTheDecremented(Oracle):
    """Sends a maker that self-trade prevention made smaller to the back of its queue."""

    def shrink(self, order: Order, lots: int) -> None:
        super().shrink(order, lots)
        if order.order_id in self.state.orders and not order.is_stop:
            self.state.books[order.instrument].refresh(order)


class SpendsWhatItEarns(Oracle):
    """Lets a market buy spend what it did not have when it began."""

    def takeable(self, taker: Order, price: int) -> int:
        if taker.is_market_buy and not taker.is_budget:
            instrument = self.state.instruments[taker.instrument]
            taker.means = taker.spent + self.state.available(taker.account, instrument.quote_asset)
        return super().takeable(taker, price)


class BudgetsWithoutFees(Oracle):
    """Does not count the fee against a budget when it says whether that is spent."""

    def emit_fill(self, order: Order, price: int, lots: int) -> int:
        if order.is_budget:
            one = self.state.instruments[order.instrument].notional(price, 1)
            order.budget_done = order.quantity - order.spent < one
        return super().emit_fill(order, price, lots)


class ReplacesInPlace(Oracle):
    """Lets an order that grew keep its place."""

    def replace(self) -> Outcome:
        order = self.named_order()
        before = order.priority
        outcome = super().replace()
        order.priority = before
        return outcome


class IgnoresTheKillSwitch(Oracle):
    """Says that it is killed and goes on."""

    def kill(self) -> Outcome:
        outcome = super().kill()
        self.state.killed = False
        return outcome


class ClosesWithOrders(Oracle):
    """Leaves the stop orders of an instrument that closes."""

    def closing_order(self, instrument: int) -> list[Order]:
        return [order for order in super().closing_order(instrument) if not order.is_stop]


class ForgetsWhoAsked(Oracle):
    """Lets a replaced order survive the end of its session."""

    def replace(self) -> Outcome:
        order = self.named_order()
        outcome = super().replace()
        order.session_id = 0
        return outcome


class CountsExpiredAsRejected(Oracle):
    """Leaves the orders that time ended out of the count of events."""

    def outcome(
        self, kind: EventKind, reason: Reason = Reason.NONE, order_id: int = 0, cum: int = 0, leaves: int = 0
    ) -> Outcome:
        told = super().outcome(kind, reason, order_id, cum, leaves)
        ended = sum(event.reason == Reason.TIME_REACHED for event in self.events)
        return told._replace(event_count=told.event_count - ended)


BROKEN: tuple[type[Oracle], ...] = (
    NewestFirst,
    WorstPriceFirst,
    KeepsImprovement,
    TradesWithItself,
    LosesHolds,
    RestsImmediate,
    ForgetsRefusedRequests,
    TrustsTheClock,
    CountsOwnOffers,
    ForgetsTransfers,
    DropsEmptyBalances,
    WaivesRoundings,
    RefreshesInPlace,
    ForgetsPriority,
    ShowsEverything,
    TriggersNearestFirst,
    StopsCascades,
    TriggersLate,
    ExpiresLate,
    KeepsMakers,
    MovesTheDecremented,
    SpendsWhatItEarns,
    BudgetsWithoutFees,
    ReplacesInPlace,
    IgnoresTheKillSwitch,
    ClosesWithOrders,
    ForgetsWhoAsked,
    CountsExpiredAsRejected,
)
