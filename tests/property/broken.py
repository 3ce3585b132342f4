"""Machines that are wrong on purpose, one bug each: what a comparison must notice to be worth its time."""

from smrx.engine.codes import OrderType, Reason, Side
from tests.oracle import Oracle
from tests.oracle.book import Book
from tests.oracle.records import Balance, Command, Event, Order, Outcome
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

    def improvement(self, limit: int, price: int) -> int:
        return 0


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
    def is_unfillable_fok(self, command: Command) -> bool:
        return super().is_unfillable_fok(command._replace(account=1 << 40))


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
)
