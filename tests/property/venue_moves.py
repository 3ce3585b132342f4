"""Steps of the random flow that are not about orders: transfers, sessions, listings and venue commands."""

from smrx.wire.codes import AccountStatus, CommandKind, InstrumentStatus
from smrx.wire.records import CAPACITIES, MAX_CAPACITY
from tests.commands import (
    Commands,
    Sender,
    add_asset,
    add_instrument,
    command,
    deposit,
    disconnect,
    open_account,
    open_session,
    set_capacity,
    set_limits,
    set_rules,
    set_status,
    withdraw,
)
from tests.oracle import Oracle
from tests.property.choices import ACCOUNTS, ASSETS, VENUE_SESSION, Choices, pick_account, pick_instrument, sender


def move_money(choices: Choices, oracle: Oracle) -> Commands:
    """Return a deposit or withdrawal; often one that was sent before."""
    done = list(oracle.state.transfers.values())
    again = choices.byte()
    if again >= 200 and done:
        same = done[again % len(done)]
        # One in four with another amount.
        return command(
            same.kind, sender(choices, oracle, 0), account=same.account, instrument=same.asset,
            quantity_lots=same.amount + (again % 4 == 0), order_id=same.transfer_id,
        )  # fmt: skip
    account, asset = pick_account(choices), choices.of((*ASSETS, 4))
    amount, transfer_id = choices.of((1, 7, 60, 200, 900, 0, (1 << 62) - 1)), 100 + choices.byte()
    if again >= 160:
        # The whole available balance, or one unit more.
        everything = oracle.state.available(account, asset) + again % 2
        return withdraw(sender(choices, oracle, account), account, asset, everything, transfer_id)
    if choices.below(3) == 2:
        return withdraw(sender(choices, oracle, account), account, asset, amount, transfer_id)
    return deposit(sender(choices, oracle, 0), account, asset, amount, transfer_id)


def session_change(choices: Choices, oracle: Oracle) -> Commands:
    """Open a session, mostly a missing one; or close or disconnect one."""
    account = pick_account(choices)
    how = choices.byte()
    if how >= 200:
        return command(CommandKind.CLOSE_SESSION, sender(choices, oracle, account))
    if how >= 140:
        return disconnect(10 + account)
    flags = choices.below(2)
    wanted = {VENUE_SESSION: 0, **{10 + a: a for a in ACCOUNTS}}
    answers = choices.of((0, 1, 2, 3, 5, 8))
    for session_id, owner in wanted.items():
        known = oracle.state.sessions.get(session_id)
        if known is None or known.closed:
            return open_session(session_id, owner, flags, answers)
    return open_session(10 + choices.below(6), account, flags, answers)


#: What SET_RETENTION sets: silences and ages that the flow reaches, numbers of transfers that it passes.
SILENCES = (86_400, 3, 86_400, 20, 0)
AGES = (7 * 86_400, 2, 7 * 86_400, 20, 0)
TRANSFERS = (1_000_000, 3, 1_000_000, 20, 0)


def retention(choices: Choices, oracle: Oracle) -> Commands:
    """Return a change of retention, seldom an invalid one."""
    who = sender(choices, oracle, 0)
    picks = [choices.byte() for _ in range(3)]
    silence, age, transfers = (
        values[4 if pick >= 250 else pick % 4] for values, pick in zip((SILENCES, AGES, TRANSFERS), picks, strict=True)
    )
    return command(
        CommandKind.SET_RETENTION, who, session_silence_s=silence, transfer_age_s=age, transfers=transfers
    )  # fmt: skip


#: What SET_CAPACITY sets: numbers that the flow reaches, and an invalid one.
CAPACITY = (MAX_CAPACITY, 3, MAX_CAPACITY, 8, 0)


def capacity(choices: Choices, oracle: Oracle) -> Commands:
    """Return a change of capacity: of one or two numbers, or back to the largest ones; seldom an invalid one."""
    names = [choices.of(CAPACITIES), choices.of(CAPACITIES)]
    numbers = {name: CAPACITY[4 if pick >= 250 else pick % 4] for name in names for pick in [choices.byte()]}
    return set_capacity(sender(choices, oracle, 0), **numbers)


#: Of a symbol: with the second version of the rules one cannot begin with the last two, nor have no letter.
FIRST_CHARACTERS = ("A", "B", "4", "I", "-", ".")


def listing(choices: Choices, oracle: Oracle) -> Commands:
    """Return a new account, asset or instrument; with so few ids most of them exist already."""
    who = sender(choices, oracle, 0)
    number = 1 + choices.below(5)
    kind = choices.below(3)
    if kind == 0:
        return open_account(who, number, choices.of((0, 5, 6)) if oracle.state.knows_credentials else 0)
    if kind == 1:
        symbol = f"{choices.of(FIRST_CHARACTERS)}{number}".ljust(choices.of((2, 8, 9, 16)), choices.of(("X", "7")))
        return add_asset(who, number, symbol, choices.below(20), choices.of((0, 100, -1)))
    symbol = f"{choices.of(FIRST_CHARACTERS)}{number}".ljust(choices.of((2, 8, 9, 16, 17, 24)), "-")
    return add_instrument(
        who, number, symbol, base_asset=choices.below(5), quote_asset=choices.below(5),
        lot_units=choices.below(3), scale_units=choices.below(3), max_price_ticks=9, max_quantity_lots=9,
    )  # fmt: skip


def venue_change(choices: Choices, oracle: Oracle) -> Commands:
    """Return a change of rules, limits, status, suspension, kill switch, what is kept, or version, or a TICK."""
    pick = choices.below(28)
    if pick >= 26:
        return capacity(choices, oracle)
    if pick >= 24:
        return retention(choices, oracle)
    who = sender(choices, oracle, 0)
    account, instrument = pick_account(choices), pick_instrument(choices)
    if pick < 6:
        return new_rules(choices, oracle, who, instrument)
    if pick < 11:
        return new_limits(choices, who, account)
    if pick < 16:
        # One in eight is not a valid status.
        side = choices.of((4, 1, 2, 3, 4, 2, 3, 0))
        return command(CommandKind.SET_STATUS, who, instrument=instrument, side=side)
    if pick < 18:
        return command(CommandKind.SUSPEND_ACCOUNT, who, account=account)
    if pick < 19:
        return command(CommandKind.RESUME_ACCOUNT, who, account=account)
    if pick < 20:
        return command(CommandKind.KILL, who)
    if pick < 21:
        return command(CommandKind.REVIVE, who)
    if pick < 23:
        return command(CommandKind.TICK)
    # Never the next one: the tape says when the rules change, and an engine stops at a version that it does not have.
    version = oracle.rules_version
    return command(CommandKind.SET_VERSION, quantity_lots=choices.of((version, 0, version + 2, 1 << 31)))


def new_limits(choices: Choices, who: Sender, account: int) -> Commands:
    """Return mostly one limit that takes effect, or none."""
    felt: tuple[dict[str, int], ...] = (
        {}, {}, {"max_open_orders": 4}, {"max_open_notional": 300}, {"max_order_notional": 150},
        {"max_order_quantity": 9}, {"max_open_orders": 9, "max_open_notional": 1_000},
    )  # fmt: skip
    return set_limits(who, account, **choices.of(felt))


def new_rules(choices: Choices, oracle: Oracle, who: Sender, instrument: int) -> Commands:
    """Return rules that let most orders through; mostly unchanged fees where open orders forbid a change."""
    taker_fee = choices.of((0, 1, 25_000, 333_333, 70_000, 1_000_000, 500_000, 1_000_001))
    maker_fee = choices.of((0, taker_fee, -taker_fee, taker_fee // 3, -(taker_fee // 2), 0, taker_fee + 1))
    has_orders = any(order.instrument == instrument for order in oracle.state.orders.values())
    known = oracle.state.instruments.get(instrument)
    if known and has_orders and choices.below(8):
        taker_fee, maker_fee = known.rules.taker_fee, known.rules.maker_fee
    bounds = {"band_bp": 6_000} if choices.below(3) == 2 else {}
    if choices.below(3) == 2:
        # A collar, and bounds that hold for market orders.
        bounds |= {"collar_bp": choices.of((2_000, 0, 1, 10_000, 10_001)), "collar_reference": choices.of((0, 1, 0, 2))}
        bounds["rule_flags"] = choices.of((0, 3, 1, 2, 4))
    pick = choices.below(8)
    if pick < 6:
        bounds |= (
            {"min_price_ticks": 3}, {"min_quantity_lots": 2}, {"min_notional": 9}, {"max_notional": 200},
            {"min_notional": 12, "max_notional": 300}, {"band_bp": 10_000},
        )[pick]  # fmt: skip
    elif choices.below(3) == 2:
        wrong: tuple[dict[str, int], ...] = (
            {"min_price_ticks": 21}, {"min_quantity_lots": 51}, {"min_notional": -1}, {"band_bp": 10_001},
            {"min_notional": 7, "max_notional": 6}, {"max_notional": 1 << 62},
        )  # fmt: skip
        bounds |= choices.of(wrong)
    return set_rules(who, instrument, taker_fee=taker_fee, maker_fee=maker_fee, **bounds)


def lift_restriction(choices: Choices, oracle: Oracle) -> Commands:
    """Undo the first restriction that is found."""
    state = oracle.state
    venue = state.sessions.get(VENUE_SESSION)
    if venue is None:
        return open_session(VENUE_SESSION, 0)
    who = (VENUE_SESSION, venue.last_request_id + 1)
    if state.killed:
        return command(CommandKind.REVIVE, who)
    for account in state.accounts.values():
        if account.status is not AccountStatus.ACTIVE:
            return command(CommandKind.RESUME_ACCOUNT, who, account=account.account)
    stopped = [known for known in state.instruments.values() if known.status is not InstrumentStatus.TRADING]
    # Fees can change only while no order is open.
    if stopped[0].status is InstrumentStatus.CLOSED and choices.below(2):
        return new_rules(choices, oracle, who, stopped[0].instrument)
    return set_status(who, stopped[0].instrument, InstrumentStatus.TRADING)
