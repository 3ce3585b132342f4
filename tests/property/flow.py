"""Random order flow: bytes in, a tape of batches out.

A step is STEP_SIZE arbitrary bytes. Their meaning depends on the state reached so far ("cancel the third open order of
this account"), which an oracle tracks; so most commands are meaningful, and Hypothesis can cut a list of steps anywhere
when it shrinks a failure. Byte 0 is always the simplest choice. Steps come from Hypothesis or from a seeded generator.
moves.py defines what one step does.
"""

import random
from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple

from hypothesis import strategies as st

from smrx.wire.codes import CommandKind, Permission, Scope, SessionFlags
from tests.commands import (
    NANOSECONDS,
    Commands,
    Sender,
    add_asset,
    add_instrument,
    apply,
    command,
    deposit,
    describe,
    join,
    open_account,
    open_session,
    set_rules,
)
from tests.oracle import Oracle, Result
from tests.oracle.oracle import NEWEST_RULES
from tests.property.choices import ACCOUNTS, ASSETS, VENUE_SESSION, Choices
from tests.property.moves import next_command
from tests.raw_credentials import add_credential, network

STEP_SIZE = 32
#: Steps for Hypothesis, which prefers short lists; deep books need long ones.
_STEP = st.binary(min_size=STEP_SIZE, max_size=STEP_SIZE)
STEPS = st.one_of(
    st.lists(_STEP, min_size=1, max_size=12),
    st.lists(_STEP, min_size=12, max_size=60),
    st.lists(_STEP, min_size=60, max_size=160),
)
START_NS = 1_000_000_000_000
#: Fees of the second instrument, in millionths: large, so that rounding matters for small numbers.
FEES = {"taker_fee": 70_000, "maker_fee": -30_000}


class Batch(NamedTuple):
    """Commands that are applied in one call, and whether the state machine is restored from its snapshot after it."""

    time_ns: int
    commands: Commands
    restore_after: bool = False


class Tape(NamedTuple):
    """A sequence of batches, and the version of the rules with which they begin."""

    batches: list[Batch]
    rules: int = NEWEST_RULES

    @property
    def commands(self) -> Commands:
        return join([batch.commands for batch in self.batches])

    def text(self, count: int | None = None) -> str:
        """Return the tape, or its first commands, as text, one command a line."""
        lines = []
        number = 0
        for batch in self.batches:
            if number == count:
                break
            lines.append(f"-- batch at time {batch.time_ns}")
            records, details = batch.commands
            for record in records[: None if count is None else count - number]:
                lines.append(f"{number:4} {describe(record, details)}")
                number += 1
            if batch.restore_after:
                lines.append("-- snapshot, restore")
        return "\n".join(lines)


class Answered(NamedTuple):
    """A tape, the oracle that applied it while it was built, one command at a time, and what that oracle returned."""

    tape: Tape
    oracle: Oracle
    results: list[Result]


#: With version 2 of the rules: the firm of each account, and credentials with their terms; each has a session.
FIRMS = {1: 5, 2: 6, 3: 5, 4: 0}
ACCOUNT, FIRM, ALL = Scope.ACCOUNT, Scope.FIRM, Scope.ALL
READ, TRADE, WITHDRAW, ADMINISTER = Permission.READ, Permission.TRADE, Permission.WITHDRAW, Permission.ADMINISTER
RISK, GATEWAY = Permission.RISK, Permission.GATEWAY
CREDENTIALS: dict[int, dict[str, Any]] = {
    21: {"scope": ACCOUNT, "subject": 1, "permissions": TRADE | WITHDRAW},
    22: {"scope": ACCOUNT, "subject": 2, "permissions": READ},
    23: {"scope": ACCOUNT, "subject": 3, "permissions": TRADE | ADMINISTER, "expires_ns": START_NS + 30 * NANOSECONDS},
    24: {"scope": ACCOUNT, "subject": 3, "permissions": TRADE, "networks": (network("10.0.0.0/8"), network("::/1"))},
    31: {"scope": FIRM, "subject": 5, "permissions": TRADE | WITHDRAW | GATEWAY},
    32: {"scope": FIRM, "subject": 5, "permissions": RISK | GATEWAY, "networks": (network("fe80::/10"),)},
    33: {"scope": FIRM, "subject": 6, "permissions": TRADE | GATEWAY},
    41: {"scope": ALL, "permissions": ADMINISTER},
    42: {"scope": ALL, "permissions": RISK | READ},
    43: {"scope": ALL, "permissions": TRADE | GATEWAY},
}


def credentials_setup(first_request: int) -> list[Commands]:
    """Return what adds the credentials, from a request of the venue's session on, and opens a session of each."""
    added = [
        add_credential((VENUE_SESSION, first_request + at), number, **terms)
        for at, (number, terms) in enumerate(CREDENTIALS.items())
    ]
    owners = {**dict.fromkeys(CREDENTIALS, 0), 21: 1, 22: 2, 23: 3, 24: 3, 31: 1, 32: 3, 33: 2}
    return [*added, *(open_session(number << 32 | 7, owners[number]) for number in CREDENTIALS)]


def market_setup(rules: int = NEWEST_RULES) -> list[Commands]:
    """Return the setup: three assets, two instruments that share one, four funded accounts with sessions.

    With version 2 of the rules credentials, too.
    """
    commands = [open_session(VENUE_SESSION, 0)]

    def venue() -> Sender:
        return VENUE_SESSION, len(commands)

    for asset, symbol in zip(ASSETS, ("USD", "BTC", "ETHER.2026-12-25"), strict=True):
        commands.append(add_asset(venue(), asset, symbol, asset, cap=0 if asset == 1 else 20_000))
    for number, symbol, base, quote, lot, scale in (
        (1, "BTC/USD", 2, 1, 10, 3),
        (2, "ETHER.2026-12-25/BTC.PRP", 3, 2, 1, 1),
    ):
        commands.append(
            add_instrument(
                venue(), number, symbol, base_asset=base, quote_asset=quote, lot_units=lot, scale_units=scale,
                max_price_ticks=20, max_quantity_lots=50,
            )
        )  # fmt: skip
    commands.append(set_rules(venue(), 2, **FEES))
    for account in ACCOUNTS:
        commands.append(open_account(venue(), account, FIRMS[account] if rules >= 2 else 0))
        for asset, amount in zip(ASSETS, (900, 500, 80), strict=True):
            commands.append(deposit(venue(), account, asset, amount, 10 * account + asset))
    # Every other session has cancel on disconnect.
    flags = (SessionFlags.NONE, SessionFlags.CANCEL_ON_DISCONNECT)
    sessions = [open_session(10 + account, account, flags[account % 2]) for account in ACCOUNTS]
    return [*commands, *(credentials_setup(len(commands)) if rules >= 2 else []), *sessions]


def seeded_steps(seed: int, count: int) -> list[bytes]:
    """Return the same steps for the same seed on every machine."""
    source = random.Random(seed)
    return [source.randbytes(STEP_SIZE) for _ in range(count)]


def venue_requests(rules: int = NEWEST_RULES) -> int:
    """Return how many requests of the venue's session the setup has."""
    records = join(market_setup(rules)).records
    return int(records["request_id"][records["session_id"] == VENUE_SESSION].max())


class Rules(NamedTuple):
    """The version of the rules with which a tape begins, and whether it switches to the next one half way."""

    version: int = NEWEST_RULES
    switches: bool = False


NEWEST = Rules()
FIRST = Rules(1)
SWITCHED = Rules(1, switches=True)
RULES = {"newest": NEWEST, "first": FIRST, "switched": SWITCHED}


def seeded_tape(seed: int, count: int, rules: Rules = NEWEST) -> Tape:
    """Return a cached tape, because several tests use it and building one runs an oracle."""
    return seeded_answered(seed, count, rules).tape


@cache
def seeded_answered(seed: int, count: int, rules: Rules = NEWEST) -> Answered:
    return build_answered(seeded_steps(seed, count), rules)


def switch_of_rules(oracle: Oracle) -> Commands:
    """Return what switches to version 2 of the rules, and adds the credentials if the venue's session can."""
    switch = command(CommandKind.SET_VERSION, version=2)
    venue = oracle.state.sessions.get(VENUE_SESSION)
    return join([switch, *(credentials_setup(venue.last_request_id + 1) if venue else [])])


def build_tape(steps: Sequence[bytes], rules: Rules = NEWEST) -> Tape:
    """Turn steps into batches; an oracle tracks the state."""
    return build_answered(steps, rules).tape


def build_answered(steps: Sequence[bytes], rules: Rules = NEWEST) -> Answered:
    """Turn steps into batches, and keep the oracle that tracks the state: it need not apply them a second time."""
    oracle = Oracle(rules.version)
    time_ns = START_NS
    setup = join(market_setup(rules.version))
    results = [apply(oracle, setup, time_ns)]
    batches = [Batch(time_ns, setup)]
    open_batch: list[Commands] = []
    sent: list[Commands] = []
    for number, step in enumerate(steps):
        choices = Choices(step)
        pause = choices.byte()
        if rules.switches and number == len(steps) // 2:
            one = switch_of_rules(oracle)
        else:
            one = next_command(choices, oracle, sent)
            sent.append(one)
        results.append(apply(oracle, one, time_ns))
        open_batch.append(one)
        if pause >= 176:
            batches.append(Batch(time_ns, join(open_batch), restore_after=pause >= 248))
            open_batch = []
            # Up to 1.5 seconds later, sometimes earlier, like the clock of a new leader, or when a credential expires.
            due = [known.expires_ns for known in oracle.state.credentials.values() if known.expires_ns > time_ns]
            time_ns = min(due) if due and pause % 8 == 3 else time_ns + (pause - 190) * 25_000_000
    if open_batch:
        batches.append(Batch(time_ns, join(open_batch)))
    return Answered(Tape(batches, rules.version), oracle, results)
