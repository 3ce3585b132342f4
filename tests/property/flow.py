"""Random order flow: bytes in, a tape of batches out.

A step is STEP_SIZE bytes, whatever they are. What they ask for depends on the state reached so far ("cancel the third
open order of this account"), which an oracle carries along; so most commands mean something, and a list of steps can
be cut anywhere by Hypothesis when it looks for a small failing example. Byte 0 is always the plainest choice. The same
steps come from Hypothesis or from a seeded generator.
"""

import random
from collections.abc import Iterable
from functools import cache
from typing import NamedTuple, TypeVar

import numpy as np
from hypothesis import strategies as st

from smrx.engine.codes import CommandKind, OrderFlags, OrderType, Side, TimeInForce
from smrx.engine.records import COMMAND
from tests.commands import (
    Commands,
    Sender,
    add_asset,
    add_instrument,
    command,
    deposit,
    describe,
    join,
    open_account,
    open_session,
    place,
    withdraw,
)
from tests.oracle import Oracle

T = TypeVar("T")

STEP_SIZE = 20
#: Steps for Hypothesis. Left to itself it makes short lists; books need long ones.
_STEP = st.binary(min_size=STEP_SIZE, max_size=STEP_SIZE)
STEPS = st.one_of(
    st.lists(_STEP, min_size=1, max_size=12),
    st.lists(_STEP, min_size=12, max_size=60),
    st.lists(_STEP, min_size=60, max_size=160),
)
VENUE_SESSION = 1
ACCOUNTS = (1, 2, 3, 4)
ASSETS = (1, 2, 3)
INSTRUMENTS = (1, 2)
#: What a limit is tested with: just inside, just outside, and as far away as the field goes.
EDGES = (0, 1, -1, 18, 19, 20, 21, 50, 51, 1 << 31, 1 << 32, (1 << 62) - 1, 1 << 62, (1 << 63) - 1, -(1 << 63))


class Batch(NamedTuple):
    """Commands that are applied in one call, and whether the machine is replaced by its snapshot after it."""

    time_ns: int
    commands: Commands
    restore_after: bool = False


class Tape(NamedTuple):
    batches: list[Batch]

    @property
    def commands(self) -> Commands:
        return join([batch.commands for batch in self.batches])

    def text(self) -> str:
        """The tape for people, a command a line."""
        lines = []
        number = 0
        for batch in self.batches:
            lines.append(f"-- batch at time {batch.time_ns}")
            for record in batch.commands:
                lines.append(f"{number:4} {describe(record)}")
                number += 1
            if batch.restore_after:
                lines.append("-- snapshot, restore")
        return "\n".join(lines)


class Choices:
    """Reads a step: each question takes the next byte; a step that has run out answers 0."""

    def __init__(self, step: bytes) -> None:
        self.step = step
        self.rest = iter(step)

    def below(self, bound: int) -> int:
        return next(self.rest, 0) % bound

    def byte(self) -> int:
        return next(self.rest, 0)

    def of(self, options: tuple[T, ...]) -> T:
        return options[self.below(len(options))]


def market() -> list[Commands]:
    """The venue before the flow: three assets, two instruments that share one, four funded accounts with sessions."""
    commands = [open_session(VENUE_SESSION, 0)]

    def venue() -> Sender:
        return VENUE_SESSION, len(commands)

    for asset, symbol in zip(ASSETS, ("USD", "BTC", "ETH"), strict=True):
        commands.append(add_asset(venue(), asset, symbol, asset))
    for number, symbol, base, quote, lot, scale in ((1, "BTC/USD", 2, 1, 10, 3), (2, "ETH/BTC", 3, 2, 1, 1)):
        commands.append(
            add_instrument(
                venue(), number, symbol, base_asset=base, quote_asset=quote, lot_units=lot, scale_units=scale,
                max_price_ticks=20, max_quantity_lots=50,
            )
        )  # fmt: skip
    for account in ACCOUNTS:
        commands.append(open_account(venue(), account))
        for asset, amount in zip(ASSETS, (1_500, 600, 80), strict=True):
            commands.append(deposit(venue(), account, asset, amount, 10 * account + asset))
    return [*commands, *(open_session(10 + account, account) for account in ACCOUNTS)]


def seeded_steps(seed: int, count: int) -> list[bytes]:
    """The same steps for the same seed, on every machine."""
    source = random.Random(seed)
    return [source.randbytes(STEP_SIZE) for _ in range(count)]


@cache
def seeded_tape(seed: int, count: int) -> Tape:
    """A tape that several tests read; it takes an oracle to make one."""
    return build_tape(seeded_steps(seed, count))


def build_tape(steps: Iterable[bytes]) -> Tape:
    """Turn steps into batches, with an oracle beside to know what there is to cancel."""
    oracle = Oracle()
    time_ns = 1_000
    setup = join(market())
    oracle.apply(setup, time_ns)
    batches = [Batch(time_ns, setup)]
    open_batch: list[Commands] = []
    for step in steps:
        choices = Choices(step)
        pause = choices.byte()
        record = next_command(choices, oracle)
        oracle.apply(record, time_ns)
        open_batch.append(record)
        if pause >= 176:
            batches.append(Batch(time_ns, join(open_batch), restore_after=pause >= 248))
            open_batch = []
            time_ns += pause - 190  # now and then the leader's clock is behind the last one's
    if open_batch:
        batches.append(Batch(time_ns, join(open_batch)))
    return Tape(batches)


def next_command(choices: Choices, oracle: Oracle) -> Commands:
    """The command a step asks for in the state the oracle is in."""
    action = choices.byte()
    for bound, make in (
        (110, plain_order),
        (160, special_order),
        (182, cancel),
        (196, replace),
        (201, mass_cancel),
        (213, move_money),
        (220, session_change),
        (225, listing),
        (228, raw_bytes),
        (242, changed_byte),
    ):
        if action < bound:
            return make(choices, oracle)
    return edge_value(choices, oracle)


def sender(choices: Choices, oracle: Oracle, account: int) -> Sender:
    """Mostly the account's own session and its next request id."""
    who, request = choices.byte(), choices.byte()
    session_id = 10 + account
    if who >= 240:
        session_id = 11 + who % 5
    elif who >= 200 or account == 0:
        session_id = VENUE_SESSION
    if session_id not in oracle.state.sessions and who % 8:
        session_id = VENUE_SESSION
    session = oracle.state.sessions.get(session_id)
    last = session.last_request_id if session else 0
    if request >= 252:
        return session_id, 0
    if request >= 246:
        return session_id, last + request - 244
    if request >= 236:
        return session_id, max(0, last - (request - 236))
    return session_id, last + 1


def some_account(choices: Choices) -> int:
    value = choices.byte()
    return (0, 7)[value & 1] if value >= 250 else ACCOUNTS[value % len(ACCOUNTS)]


def some_side(choices: Choices) -> Side:
    return choices.of((Side.BUY, Side.SELL))


def some_instrument(choices: Choices) -> int:
    value = choices.byte()
    return 3 if value >= 252 else INSTRUMENTS[value >= 160]


def plain_order(choices: Choices, oracle: Oracle) -> Commands:
    account = some_account(choices)
    side = some_side(choices)
    # Bids and offers overlap in half of their prices, so that books are deep and trades many.
    quantity, price = 1 + choices.below(9), (1 if side is Side.BUY else 5) + choices.below(8)
    instrument = some_instrument(choices)
    who = sender(choices, oracle, account)
    client_order_id = max(0, choices.byte() // 8 - 24)
    return place(who, account, side, quantity, price, instrument=instrument, client_order_id=client_order_id)


SPECIAL = (
    (OrderType.LIMIT, TimeInForce.IOC, 0),
    (OrderType.MARKET, TimeInForce.IOC, 0),
    (OrderType.LIMIT, TimeInForce.FOK, 0),
    (OrderType.LIMIT, TimeInForce.GTC, OrderFlags.POST_ONLY),
)
UNSUPPORTED = (
    (OrderType.MARKET, TimeInForce.GTC, 0),
    (OrderType.MARKET, TimeInForce.FOK, 0),
    (OrderType.LIMIT, TimeInForce.GTD, 0),
    (OrderType.LIMIT, TimeInForce.IOC, OrderFlags.POST_ONLY),
    (OrderType.LIMIT, TimeInForce.FOK, OrderFlags.POST_ONLY),
    (OrderType.MARKET, TimeInForce.IOC, OrderFlags.POST_ONLY),
)


def special_order(choices: Choices, oracle: Oracle) -> Commands:
    """Immediate, fill-or-kill, market and post-only orders; seldom a combination nobody supports."""
    record = plain_order(choices, oracle)
    pick = choices.byte()
    order_type, tif, flags = UNSUPPORTED[pick % 6] if pick >= 240 else SPECIAL[pick % 4]
    record["order_type"], record["tif"], record["flags"] = order_type, tif, flags
    if order_type is OrderType.MARKET:
        record["price_ticks"] = 0
    else:
        # A limit far into the book: more to look through.
        record["price_ticks"] = 4 + choices.below(9) if record["side"] == Side.BUY else 1 + choices.below(9)
    record["quantity_lots"] += choices.below(12)
    if choices.byte() >= 248:
        record["stp"] = choices.below(5)
    return record


def named_order(choices: Choices, oracle: Oracle) -> tuple[int, dict[str, int]]:
    """An account and one of its open orders, mostly; by client order id where it has one and chance says so."""
    account, pick, by_client_id = some_account(choices), choices.byte(), choices.byte()
    own = [order for order in oracle.state.orders.values() if order.account == account]
    if pick >= 244 or not own:
        own = list(oracle.state.orders.values())
    if not own:
        return account, {"order_id": 1 + pick}
    order = own[pick % len(own)]
    if by_client_id >= 128 and order.client_order_id:
        return account, {"client_order_id": order.client_order_id}
    return account, {"order_id": order.order_id}


def cancel(choices: Choices, oracle: Oracle) -> Commands:
    account, named = named_order(choices, oracle)
    return command(CommandKind.CANCEL, sender(choices, oracle, account), account=account, **named)


def replace(choices: Choices, oracle: Oracle) -> Commands:
    account, named = named_order(choices, oracle)
    order = oracle.state.orders.get(named.get("order_id", 0))
    price, quantity = (order.price, order.quantity - 1 - choices.below(4)) if order else (5, 1)
    if choices.byte() >= 224:
        price += choices.below(3) - 1
        quantity += choices.below(8)
    who = sender(choices, oracle, account)
    return command(CommandKind.REPLACE, who, account=account, price_ticks=price, quantity_lots=quantity, **named)


def mass_cancel(choices: Choices, oracle: Oracle) -> Commands:
    account = some_account(choices)
    who = sender(choices, oracle, account)
    return command(CommandKind.MASS_CANCEL, who, account=account, instrument=choices.below(4), side=choices.below(3))


def move_money(choices: Choices, oracle: Oracle) -> Commands:
    """Deposits and withdrawals; often one that was made before, sent again."""
    done = list(oracle.state.transfers.values())
    again = choices.byte()
    if again >= 200 and done:
        same = done[again % len(done)]
        return command(
            same.kind, sender(choices, oracle, 0), account=same.account, instrument=same.asset,
            quantity_lots=same.amount, order_id=same.transfer_id,
        )  # fmt: skip
    account, asset = some_account(choices), choices.of((*ASSETS, 4))
    amount, transfer_id = choices.of((1, 7, 60, 200, 900, 0, (1 << 62) - 1)), 100 + choices.byte()
    if again >= 160:
        # All there is, or one more than that.
        everything = oracle.state.available(account, asset) + again % 2
        return withdraw(sender(choices, oracle, account), account, asset, everything, transfer_id)
    if choices.below(2):
        return withdraw(sender(choices, oracle, account), account, asset, amount, transfer_id)
    return deposit(sender(choices, oracle, 0), account, asset, amount, transfer_id)


def session_change(choices: Choices, oracle: Oracle) -> Commands:
    """Open a session, mostly one that is missing; or close one."""
    account = some_account(choices)
    if choices.byte() >= 224:
        return command(CommandKind.CLOSE_SESSION, sender(choices, oracle, account))
    wanted = {VENUE_SESSION: 0, **{10 + a: a for a in ACCOUNTS}}
    for session_id, owner in wanted.items():
        if session_id not in oracle.state.sessions:
            return open_session(session_id, owner)
    return open_session(10 + choices.below(6), account)


def listing(choices: Choices, oracle: Oracle) -> Commands:
    """New accounts, assets and instruments; with so few ids most exist already."""
    who = sender(choices, oracle, 0)
    number = 1 + choices.below(5)
    kind = choices.below(3)
    if kind == 0:
        return open_account(who, number)
    if kind == 1:
        return add_asset(who, number, f"A{number}", choices.below(20))
    return add_instrument(
        who, number, f"I{number}", base_asset=choices.below(5), quote_asset=choices.below(5),
        lot_units=choices.below(3), scale_units=choices.below(3), max_price_ticks=9, max_quantity_lots=9,
    )  # fmt: skip


def raw_bytes(choices: Choices, oracle: Oracle) -> Commands:
    """Sixty-four bytes of noise, sometimes with a kind and a sender that exist."""
    record = np.frombuffer(random.Random(choices.step).randbytes(COMMAND.itemsize), dtype=COMMAND).copy()
    believable = choices.byte()
    if believable >= 64:
        record["session_id"], record["request_id"] = sender(choices, oracle, some_account(choices))
    if believable >= 128:
        record["kind"] = choices.of(tuple(CommandKind))
    return record


def changed_byte(choices: Choices, oracle: Oracle) -> Commands:
    """A good command with one byte changed."""
    position, value = choices.byte(), choices.byte()
    # The small fields, which are enumerations, half of the time, and there a value that is nearly right.
    position, value = (position % 6, value % 8) if position < 128 else (position % COMMAND.itemsize, value)
    make = choices.of((plain_order, special_order, cancel, replace, mass_cancel, move_money, session_change, listing))
    record = make(choices, oracle)
    record.view(np.uint8)[position] = value
    return record


def edge_value(choices: Choices, oracle: Oracle) -> Commands:
    """A good command with one field at a limit of what it may hold."""
    edge = choices.of(EDGES)
    field = choices.of(("price_ticks", "quantity_lots", "order_id", "client_order_id", "account", "instrument", "stp"))
    make = choices.of((plain_order, special_order, replace, move_money, move_money, listing, cancel))
    record = make(choices, oracle)
    info = np.iinfo(COMMAND[field])
    record[field] = edge & int(info.max) if info.min == 0 else edge
    return record
