"""One command cancels a bounded number of orders and says that there are more; sending it again cancels the rest."""

from collections.abc import Callable

import numpy as np
import pytest

from smrx.engine import Engine, Result
from smrx.wire.codes import CommandKind, EventKind, InstrumentStatus, SessionFlags, Side
from smrx.wire.command_list import CommandList
from smrx.wire.records import COMMAND, MAX_CANCELS
from tests.commands import apply, command, disconnect, open_session
from tests.engine.small_market import SmallMarket
from tests.oracle import Oracle

MORE = 3
#: The session whose end cancels orders, and that of account 1's requests.
ENDING, OWN = 50, 11


def crowded_market(rules: int = 2) -> "Recorded":
    """Return a market in which account 1 has MAX_CANCELS + MORE buy orders, every one of session ENDING, and a sell."""
    market = Recorded(rules)
    market.send(open_session(ENDING, 1, SessionFlags.CANCEL_ON_DISCONNECT))
    market.sell(1, 1, 900)
    rows = np.zeros(MAX_CANCELS + MORE, COMMAND)
    rows["kind"], rows["account"], rows["instrument"], rows["side"] = CommandKind.PLACE, 1, 1, Side.BUY
    rows["order_type"], rows["tif"], rows["quantity_lots"] = 1, 1, 1
    rows["price_ticks"] = 100 + np.arange(len(rows)) % 50
    rows["session_id"], rows["request_id"] = ENDING, 1 + np.arange(len(rows))
    market.send(CommandList(rows))
    market.requests[ENDING] = len(rows)
    return market


class Recorded(SmallMarket):
    """A market that keeps what it sends."""

    def __init__(self, rules: int) -> None:
        self.sent: list[CommandList] = []
        super().__init__(rules=rules)

    def send(self, commands: CommandList, time_ns: int = 1) -> Result:
        self.sent.append(commands)
        return super().send(commands, time_ns)


class QuickOracle(Oracle):
    """An oracle that computes no state hash: with so many orders each would take a millisecond."""

    def chain_hash(self) -> None:
        """Leave the hash."""


def mass_cancel(market: SmallMarket) -> CommandList:
    return command(CommandKind.MASS_CANCEL, market.sender(1), account=1, side=Side.BUY)


def close_session(market: SmallMarket) -> CommandList:
    market.requests[ENDING] += 1
    return command(CommandKind.CLOSE_SESSION, (ENDING, market.requests[ENDING]))


def close_instrument(market: SmallMarket) -> CommandList:
    return command(CommandKind.SET_STATUS, market.sender(0), instrument=1, status=InstrumentStatus.CLOSED)


#: Sends the command once; the kinds of event of the first and the second time; orders that are left after the first.
CASES: dict[str, tuple[Callable[[SmallMarket], CommandList], EventKind, EventKind, int]] = {
    # It has not looked at the rest: the sell is the oldest order, and was.
    "MASS_CANCEL": (mass_cancel, EventKind.MASS_CANCELLED, EventKind.MASS_CANCELLED, MORE),
    "DISCONNECT": (
        lambda market: disconnect(ENDING),
        EventKind.SESSION_DISCONNECTED,
        EventKind.SESSION_DISCONNECTED,
        MORE,
    ),
    "CLOSE_SESSION": (close_session, EventKind.SESSION_DISCONNECTED, EventKind.SESSION_CLOSED, MORE),
    "SET_STATUS": (close_instrument, EventKind.STATUS_SET, EventKind.STATUS_SET, MORE + 1),
}


def counts(result: Result) -> tuple[int, int, int]:
    """Return event kind, orders cancelled and orders left of one outcome."""
    (outcome,) = result.outcomes
    cancelled = int((result.events["kind"] == EventKind.CANCELLED).sum())
    assert cancelled == int(outcome["cum_lots"])
    return int(outcome["event_kind"]), cancelled, int(outcome["leaves_lots"])


@pytest.mark.parametrize("name", CASES)
def test_repeated_command_cancels_the_rest(name: str) -> None:
    make, first, second, left = CASES[name]
    market = crowded_market()
    assert counts(apply(market.engine, make(market), 1)) == (first, MAX_CANCELS, left)
    assert market.engine.inspect.counts()["orders"] == MORE + 1
    market.check_state()
    restored = Engine.restore(market.engine.snapshot())
    again = make(market)
    found = apply(market.engine, again, 1)
    assert counts(found) == (second, left, 0)
    assert apply(restored, again, 1).hashes.tobytes() == found.hashes.tobytes()
    market.check_state()


def test_oracle_agrees() -> None:
    """Loading the oracle takes two seconds, so it is done once: the orders of the session are cancelled in two ways."""
    market, oracle = crowded_market(), QuickOracle()
    for sent in market.sent:
        oracle.apply(sent.records, 1, sent.details)
    make = [CASES[name][0] for name in CASES]
    for sent in [make[0](market), make[1](market), make[2](market), make[3](market)]:
        found, expected = apply(market.engine, sent, 1), oracle.apply(sent.records, 1, sent.details)
        assert found.outcomes.tobytes() == expected.outcomes.tobytes()
        assert found.events.tobytes() == expected.events.tobytes()
        assert market.engine.content_hash() == oracle.content_hash()


@pytest.mark.parametrize("name", CASES)
def test_first_rules_cancel_everything_at_once(name: str) -> None:
    make, _, last, left = CASES[name]
    market = crowded_market(rules=1)
    assert counts(apply(market.engine, make(market), 1)) == (last, MAX_CANCELS + left, 0)


def test_instrument_is_closed_when_no_order_is_left() -> None:
    market = crowded_market()
    seen = []
    for _ in range(2):
        market.send(close_instrument(market))
        seen.append(InstrumentStatus(int(market.engine.inspect.instruments()["status"][0])))
    assert seen == [InstrumentStatus.CANCEL_ONLY, InstrumentStatus.CLOSED]


def test_closed_session_with_orders_left_goes_on() -> None:
    market = crowded_market()
    market.send(close_session(market))
    assert not market.engine.inspect.session(ENDING)["closed"][0]
    market.send(close_session(market))
    assert market.engine.inspect.session(ENDING)["closed"][0]


def test_orders_of_another_side_are_looked_at_and_kept() -> None:
    market = crowded_market()
    sent = command(CommandKind.MASS_CANCEL, market.sender(1), account=1, side=Side.SELL)
    assert counts(market.send(sent)) == (EventKind.MASS_CANCELLED, 1, 0)
    assert market.engine.inspect.counts()["orders"] == MAX_CANCELS + MORE
