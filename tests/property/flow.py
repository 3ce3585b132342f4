"""Random order flow: bytes in, a tape of batches out.

A step is STEP_SIZE arbitrary bytes. Their meaning depends on the state reached so far ("cancel the third open order of
this account"), which an oracle tracks; so most commands are meaningful, and Hypothesis can cut a list of steps anywhere
when it shrinks a failure. Byte 0 is always the simplest choice. Steps come from Hypothesis or from a seeded generator.
moves.py defines what one step does.
"""

import random
from collections.abc import Iterable
from functools import cache
from typing import NamedTuple

from hypothesis import strategies as st

from smrx.wire.codes import SessionFlags
from tests.commands import (
    Commands,
    Sender,
    add_asset,
    add_instrument,
    apply,
    deposit,
    describe,
    join,
    open_account,
    open_session,
    set_rules,
)
from tests.oracle import Oracle
from tests.property.choices import ACCOUNTS, ASSETS, VENUE_SESSION, Choices
from tests.property.moves import next_command

STEP_SIZE = 24
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
    """A sequence of batches."""

    batches: list[Batch]

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


def market_setup() -> list[Commands]:
    """Return the setup: three assets, two instruments that share one, four funded accounts with sessions."""
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
        commands.append(open_account(venue(), account))
        for asset, amount in zip(ASSETS, (900, 500, 80), strict=True):
            commands.append(deposit(venue(), account, asset, amount, 10 * account + asset))
    # Every other session has cancel on disconnect.
    flags = (SessionFlags.NONE, SessionFlags.CANCEL_ON_DISCONNECT)
    return [*commands, *(open_session(10 + account, account, flags[account % 2]) for account in ACCOUNTS)]


def seeded_steps(seed: int, count: int) -> list[bytes]:
    """Return the same steps for the same seed on every machine."""
    source = random.Random(seed)
    return [source.randbytes(STEP_SIZE) for _ in range(count)]


@cache
def seeded_tape(seed: int, count: int) -> Tape:
    """Return a cached tape, because several tests use it and building one runs an oracle."""
    return build_tape(seeded_steps(seed, count))


def build_tape(steps: Iterable[bytes]) -> Tape:
    """Turn steps into batches; an oracle tracks the state."""
    oracle = Oracle()
    time_ns = START_NS
    setup = join(market_setup())
    apply(oracle, setup, time_ns)
    batches = [Batch(time_ns, setup)]
    open_batch: list[Commands] = []
    for step in steps:
        choices = Choices(step)
        pause = choices.byte()
        command = next_command(choices, oracle)
        apply(oracle, command, time_ns)
        open_batch.append(command)
        if pause >= 176:
            batches.append(Batch(time_ns, join(open_batch), restore_after=pause >= 248))
            open_batch = []
            # Up to 1.5 seconds later; sometimes earlier, like the clock of a new leader.
            time_ns += (pause - 190) * 25_000_000
    if open_batch:
        batches.append(Batch(time_ns, join(open_batch)))
    return Tape(batches)
