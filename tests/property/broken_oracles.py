"""Oracles with one deliberate bug each, which a comparison must notice."""

from collections import deque
from dataclasses import replace

import xxhash

from smrx.wire.codes import CommandKind, EventKind, OrderType, Reason, Side, TimeInForce
from tests.oracle import Oracle
from tests.oracle.book import Book
from tests.oracle.messages import Command, Event, Outcome
from tests.oracle.oracle import NEWEST_RULES
from tests.oracle.records import Balance, Order, Terms, id_form
from tests.oracle.state import State


class NewestFirstBook(Book):
    def add(self, order: Order) -> None:
        super().add(order)
        self.queues[order.side][order.price].rotate(1)


class WorstPriceBook(Book):
    def prices(self, side: Side) -> list[int]:
        return super().prices(side)[::-1] if side is Side.SELL else super().prices(side)


class NewestFirst(Oracle):
    """Fills the newest order of a price first."""

    make_book = NewestFirstBook


class WorstPriceFirst(Oracle):
    """Fills the highest ask first."""

    make_book = WorstPriceBook


class KeepsImprovement(Oracle):
    """Does not return a buyer's price improvement."""

    def settle(self, order: Order, price: int, lots: int, own_fee: int) -> None:
        limit = order.price if order.side is Side.BUY and order.order_type is OrderType.LIMIT else price
        super().settle(order, max(limit, price), lots, own_fee)


class TradesWithItself(Oracle):
    """Lets an account trade with itself."""

    def is_self_trade(self, taker: Order, maker: Order) -> bool:
        return False


class LosesHolds(Oracle):
    """Never releases the hold of an ended order."""

    def release_hold(self, order: Order, lots: int) -> None:
        """Keep the hold."""


class RestsImmediate(Oracle):
    """Rests the remainder of an immediate-or-cancel order."""

    def may_rest(self, order: Order) -> bool:
        return order.order_type is OrderType.LIMIT


class ReusesRejectedRequestIds(Oracle):
    """Does not count the request id of a rejected command, so that it may be sent again."""

    def reject(self, reason: Reason) -> Outcome:
        session = self.state.sessions.get(self.command.session_id)
        if session and session.last_request_id == self.command.request_id:
            session.last_request_id -= 1
        return super().reject(reason)


class LetsTimeGoBack(Oracle):
    """Lets the engine's time go back."""

    def apply_one(self, command: Command, stamp: int) -> tuple[Outcome, list[Event]]:
        self.state.time_ns = min(self.state.time_ns, stamp)
        return super().apply_one(command, stamp)


class OwnOffersState(State):
    def is_unfillable(self, order: Order) -> bool:
        return super().is_unfillable(replace(order, account=1 << 40))


class CountsOwnOffers(Oracle):
    """Counts the account's own orders when it checks whether a fill-or-kill order fills."""

    make_state = OwnOffersState


class RepeatsTransfers(Oracle):
    """Does not store transfer ids, so that a repeated transfer is applied twice."""

    def deposit(self) -> Outcome:
        outcome = super().deposit()
        del self.state.transfers[self.command.order_id]
        return outcome


class DropsEmptyBalances(Oracle):
    """Removes a balance that becomes 0."""

    def withdraw(self) -> Outcome:
        outcome = super().withdraw()
        key = (self.command.account, self.command.instrument)
        if self.state.balances[key] == Balance(*key):
            del self.state.balances[key]
        return outcome


class RoundsVenueFeesDown(Oracle):
    """Rounds the venue's part of a fee down."""

    def credit(self, account: int, asset: int, amount: int) -> None:
        super().credit(account, asset, amount - (account == 0 and amount > 1))


class RefreshesInPlace(Oracle):
    """Lets an iceberg keep its place when it shows its next part."""

    def refresh(self, iceberg: Order, event_sequence: int) -> None:
        iceberg.shown = min(iceberg.display, iceberg.leaves)


class KeepsOldPriority(Oracle):
    """Moves a refreshed iceberg to its new place without the new priority."""

    def refresh(self, iceberg: Order, event_sequence: int) -> None:
        super().refresh(iceberg, iceberg.priority)


class ShowsEverything(Oracle):
    """Lets a taker fill the hidden lots of an iceberg at once."""

    def trade(self, taker: Order, maker: Order, lots: int) -> None:
        super().trade(taker, maker, lots if not maker.display else min(maker.leaves, max(lots, taker.leaves)))


class TriggersNearestFirst(Oracle):
    """Elects the stop first whose price is nearest to the trade."""

    def elect(self, instrument: int, elected: "tuple[()] | deque[Order]") -> list[Order]:
        return super().elect(instrument, elected)[::-1]


class StopsCascades(Oracle):
    """Does not elect stops after the trades of a triggered stop."""

    def trigger(self, order: Order) -> bool:
        super().trigger(order)
        return False


class TriggersLate(Oracle):
    """Triggers stops only if the command's own order has ended."""

    def trigger_stops(self, instrument: int) -> None:
        if self.state.sequence not in self.state.orders:
            super().trigger_stops(instrument)


class ExpiresLate(Oracle):
    """Expires an order a second after its time."""

    def expire_orders(self) -> None:
        self.state.time_ns -= 1_000_000_000
        super().expire_orders()
        self.state.time_ns += 1_000_000_000


class KeepsMakersOfCancelBoth(Oracle):
    """Keeps the maker where CANCEL_BOTH should cancel it."""

    def prevent_self_trade(self, taker: Order, maker: Order) -> bool:
        return True


class RequeuesDecrementedMaker(Oracle):
    """Moves a decremented maker to the back of its queue."""

    def reduce_order(self, order: Order, lots: int) -> None:
        super().reduce_order(order, lots)
        if order.order_id in self.state.orders and not order.is_stop:
            self.state.books[order.instrument].refresh(order)


class SpendsFundsGainedMeanwhile(Oracle):
    """Lets a market buy spend funds that it did not have when it started."""

    def takeable_lots(self, taker: Order, price: int) -> int:
        if taker.is_market_buy and not taker.is_budget:
            instrument = self.state.instruments[taker.instrument]
            taker.spendable = taker.spent + self.state.available(taker.account, instrument.quote_asset)
        return super().takeable_lots(taker, price)


class BudgetsWithoutFees(Oracle):
    """Ignores the fee when it decides whether a budget is spent."""

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
    """Reports KILLED and continues."""

    def kill(self) -> Outcome:
        outcome = super().kill()
        self.state.killed = False
        return outcome


class ClosesWithOrders(Oracle):
    """Keeps the stop orders of an instrument that closes."""

    def closing_order(self, instrument: int) -> list[Order]:
        return [order for order in super().closing_order(instrument) if not order.is_stop]


class LosesSessionOnReplace(Oracle):
    """Lets a replaced order survive the end of its session."""

    def replace(self) -> Outcome:
        order = self.named_order()
        outcome = super().replace()
        order.session_id = 0
        return outcome


class ExactIdsState(State):
    def has_id_like(self, account: int, client_order_id: bytes) -> bool:
        return self.order_by_client_id(account, client_order_id) is not None


class HashedIdsState(State):
    def order_by_client_id(self, account: int, client_order_id: bytes) -> Order | None:
        form = id_form(client_order_id)
        own = [order for order in self.orders.values() if order.account == account]
        return next((order for order in own if id_form(order.client_order_id) == form), None)


class ComparesHashesOfIds(Oracle):
    """Takes two long client order ids with the same 64-bit form for the same id, also where an order is named."""

    make_state = HashedIdsState


class ComparesTextsOfIds(Oracle):
    """Accepts a long client order id whose 64-bit form, but not its text, an open order of the account has."""

    make_state = ExactIdsState


class HashesPartsOfIds(Oracle):
    """Leaves the second half of a long client order id out of its hash."""

    def emit(self, kind: EventKind, **fields: int | bytes) -> int:
        order = self.state.orders.get(int(fields.get("order_id", 0)))
        if order and order.has_long_id and "client_order_id" in fields and kind is not EventKind.CLIENT_ORDER_ID:
            fields["client_order_id"] = xxhash.xxh3_64_intdigest(order.client_order_id[:32]) | 1 << 63
        return super().emit(kind, **fields)


class TellsNoTerms(Oracle):
    """Does not report the terms of a new order."""

    def following(self, of: Order | Command) -> list[tuple[EventKind, dict[str, int | bytes]]]:
        return [told for told in super().following(of) if told[0] is not EventKind.ORDER_TERMS]


class TellsTermsBeforeTheId(Oracle):
    """Reports the terms of a new order before its client order id."""

    def following(self, of: Order | Command) -> list[tuple[EventKind, dict[str, int | bytes]]]:
        return super().following(of)[::-1]


class CountsNothingThatFollows(Oracle):
    """Says in no event how many follow and belong to it."""

    def emit(self, kind: EventKind, **fields: int | bytes) -> int:
        fields.pop("following", None)
        return super().emit(kind, **fields)


class TellsIdsOfMalformedCommands(Oracle):
    """Reports the text in the details of a malformed command."""

    def reject(self, reason: Reason) -> Outcome:
        if reason is Reason.INVALID_CLIENT_ORDER_ID:
            self.emit(EventKind.CLIENT_ORDER_ID, client_order_id=self.command.id_text)
        return super().reject(reason)


class NeverExpiresStops(Oracle):
    """Keeps pending stop orders beyond their expiry."""

    def expire_orders(self) -> None:
        kept = {number: order for number, order in self.state.orders.items() if order.is_stop}
        for number in kept:
            del self.state.orders[number]
        super().expire_orders()
        self.state.orders |= kept


class LosesTermsOnTrigger(Oracle):
    """Lets a triggered stop-limit order rest without its display and expiry."""

    def trigger(self, order: Order) -> bool:
        order.terms = Terms()
        order.tif = TimeInForce.GTC if order.tif is TimeInForce.GTD else order.tif
        return super().trigger(order)


class KeepsStopPriceOnTrigger(Oracle):
    """Keeps the stop price in the state after the order has triggered."""

    def rest(self, order: Order) -> None:
        super().rest(order)
        asked = self.prices.get(order.order_id)
        order.terms = order.terms._replace(stop_price=asked or 0)

    def __init__(self, rules: int = NEWEST_RULES) -> None:
        super().__init__(rules)
        self.prices: dict[int, int] = {}

    def trigger(self, order: Order) -> bool:
        self.prices[order.order_id] = order.stop_price
        return super().trigger(order)


class RoundsExpiries(Oracle):
    """Expires orders at the end of the second."""

    def expire_orders(self) -> None:
        now = self.state.time_ns
        self.state.time_ns = now // 1_000_000_000 * 1_000_000_000
        super().expire_orders()
        self.state.time_ns = now


class ShowsStops(Oracle):
    """Shows the first part of an iceberg while it is a pending stop order."""

    def take_hold(self, order: Order) -> None:
        super().take_hold(order)
        order.shown = min(order.display, order.leaves) if order.is_stop else order.shown


class CutsSymbols(Oracle):
    """Keeps only the first eight characters of a symbol."""

    def add_instrument(self) -> Outcome:
        outcome = super().add_instrument()
        listed = self.state.instruments[self.command.instrument]
        listed.symbol = listed.symbol[:8]
        return outcome


class ForgetsClosedSessions(Oracle):
    """Removes a session that is closed, so that its requests can be done again."""

    def close_session(self) -> Outcome:
        outcome = super().close_session()
        del self.state.sessions[self.command.session_id]
        return outcome


class AnswersWithThePresent(Oracle):
    """Answers the session's last request, whichever one is repeated."""

    def apply_one(self, command: Command, stamp: int) -> tuple[Outcome, list[Event]]:
        session = self.state.sessions.get(command.session_id)
        if session and command.request_id in session.answers and self.is_duplicate(command):
            return Outcome(*session.answers[session.last_request_id]), []
        return super().apply_one(command, stamp)


class EndsSessionsWithOrders(Oracle):
    """Ends silent sessions that have open orders of their own."""

    def end_silent_sessions(self) -> None:
        owners = {number: order.session_id for number, order in self.state.orders.items()}
        for number in owners:
            self.state.orders[number].session_id = 0
        super().end_silent_sessions()
        for number, session_id in owners.items():
            self.state.orders[number].session_id = session_id


class KeepsEverySession(Oracle):
    """Never ends a silent session."""

    def end_silent_sessions(self) -> None:
        """Keep all of them."""


class KeepsEveryTransfer(Oracle):
    """Never forgets a transfer id."""

    def forget_transfers(self) -> None:
        """Keep all of them."""

    def forget_transfer(self) -> None:
        """Keep it."""


class HasNoCollars(Oracle):
    """Lets market orders trade at any price."""

    def worst_price(self, order: Order) -> int | None:
        return None


class MovesCollars(Oracle):
    """Counts the collar from the best price at each trade, so that it moves with the market."""

    def next_maker(self, book: Book, taker: Order) -> Order | None:
        taker.worst_price = self.worst_price(taker)
        return super().next_maker(book, taker)


class OmitsExpiriesFromEventCount(Oracle):
    """Does not count expired orders in the outcome's event count."""

    def outcome(
        self, kind: EventKind, reason: Reason = Reason.NONE, order_id: int = 0, cum: int = 0, leaves: int = 0
    ) -> Outcome:
        result = super().outcome(kind, reason, order_id, cum, leaves)
        ended = sum(event.reason == Reason.TIME_REACHED for event in self.events)
        return result._replace(event_count=result.event_count - ended)


class NeverFull(Oracle):
    """Refuses nothing for want of space."""

    def rejection_reason(self, command: Command) -> Reason:
        reason = super().rejection_reason(command)
        return Reason.NONE if reason is Reason.CAPACITY_REACHED else reason


class RefusesTakersWhenFull(Oracle):
    """Refuses orders that would not rest, too, when there are as many open orders as the venue allows."""

    def rejection_reason(self, command: Command) -> Reason:
        reason, state = super().rejection_reason(command), self.state
        full = state.has_bounds and command.kind == CommandKind.PLACE and len(state.orders) >= state.capacity.orders
        return Reason.CAPACITY_REACHED if full and not reason else reason


class HashesNoCapacity(Oracle):
    """Leaves the capacities out of the content hash."""

    def set_capacity(self) -> Outcome:
        outcome, wanted = super().set_capacity(), self.state.capacity
        self.state.capacity = type("Unhashed", (type(wanted),), {"hash": lambda self: 0})(*wanted)
        return outcome


BROKEN: tuple[type[Oracle], ...] = (
    NewestFirst,
    WorstPriceFirst,
    KeepsImprovement,
    TradesWithItself,
    LosesHolds,
    RestsImmediate,
    ReusesRejectedRequestIds,
    LetsTimeGoBack,
    CountsOwnOffers,
    RepeatsTransfers,
    DropsEmptyBalances,
    RoundsVenueFeesDown,
    RefreshesInPlace,
    KeepsOldPriority,
    ShowsEverything,
    TriggersNearestFirst,
    StopsCascades,
    TriggersLate,
    ExpiresLate,
    KeepsMakersOfCancelBoth,
    RequeuesDecrementedMaker,
    SpendsFundsGainedMeanwhile,
    BudgetsWithoutFees,
    ReplacesInPlace,
    IgnoresTheKillSwitch,
    ClosesWithOrders,
    LosesSessionOnReplace,
    ComparesHashesOfIds,
    ComparesTextsOfIds,
    HashesPartsOfIds,
    TellsNoTerms,
    TellsTermsBeforeTheId,
    CountsNothingThatFollows,
    TellsIdsOfMalformedCommands,
    NeverExpiresStops,
    LosesTermsOnTrigger,
    KeepsStopPriceOnTrigger,
    RoundsExpiries,
    ShowsStops,
    CutsSymbols,
    ForgetsClosedSessions,
    AnswersWithThePresent,
    EndsSessionsWithOrders,
    KeepsEverySession,
    KeepsEveryTransfer,
    HasNoCollars,
    MovesCollars,
    OmitsExpiriesFromEventCount,
    NeverFull,
    RefusesTakersWhenFull,
    HashesNoCapacity,
)
