"""Orders, books and balances can be rebuilt from the events alone."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given

from smrx.engine import Engine
from smrx.wire.codes import EventKind
from tests.commands import apply
from tests.oracle.oracle import NEWEST_RULES
from tests.property.comparison import ALL_LEVELS, run
from tests.property.flow import STEPS, build_tape, seeded_steps
from tests.property.repeat import hex_command
from tests.reconstruct import EventReader

ORDERS = [
    *("order_id", "client_order_id", "account", "instrument", "side", "order_type", "tif", "stp", "flags"),
    *("price_ticks", "quantity_lots", "cum_lots", "leaves_lots", "shown_lots", "session_id", "priority"),
    *("stop_price_ticks", "display_lots", "expiry_ns", "credential"),
]
INSTRUMENTS = [
    *("symbol", "base_asset", "quote_asset", "lot_units", "scale_units", "max_price_ticks", "max_quantity_lots"),
    *("status", "last_price_ticks", "taker_fee", "maker_fee", "band_bp"),
    *("min_price_ticks", "min_quantity_lots", "min_notional", "max_notional"),
    *("collar_bp", "collar_reference", "rule_flags"),
]
CREDENTIALS = ["key", "permissions", "scope", "subject", "expires_ns", "revoked", "networks", "prefixes"]
LIMITS = ["max_open_orders", "max_open_notional", "max_order_notional", "max_order_quantity"]


def rebuilt_state(reader: EventReader) -> dict[str, Any]:
    """Return the rebuilt state in plain tuples."""
    return {
        "orders": [_fields(order, ORDERS) for _, order in sorted(reader.orders.items())],
        "balances": [(*key, money.available, money.held) for key, money in sorted(reader.balances.items())],
        "accounts": [
            (number, known.status, *known.limits, known.firm) for number, known in sorted(reader.accounts.items())
        ],
        "credentials": [(number, *_fields(known, CREDENTIALS)) for number, known in sorted(reader.credentials.items())],
        "assets": [(asset, *terms, reader.supply(asset)) for asset, terms in sorted(reader.assets.items())],
        "instruments": [(number, *_fields(known, INSTRUMENTS)) for number, known in sorted(reader.instruments.items())],
        "sessions": [(session, *known) for session, known in sorted(reader.sessions.items())],
        "books": {number: reader.depth(number) for number in sorted(reader.instruments)},
        "killed": reader.killed,
        "rules": reader.rules_version,
        "events": reader.sequence,
        "trades": reader.match_id,
    }


def _fields(record: Any, names: list[str]) -> tuple[Any, ...]:
    return tuple(getattr(record, name) for name in names)


def machine_state(machine: Any) -> dict[str, Any]:
    """Return the same of the state machine itself."""
    inspect = machine.inspect
    return {
        "orders": _rows(inspect.orders(), ORDERS),
        "balances": sorted(_rows(inspect.balances(), ["account", "asset", "available", "held"])),
        "accounts": sorted(_rows(inspect.accounts(), ["account", "status", *LIMITS, "firm"])),
        "credentials": _rows(inspect.credentials(), ["number", *CREDENTIALS]),
        "assets": sorted(_rows(inspect.assets(), ["asset", "symbol", "decimals", "cap", "supply"])),
        "instruments": sorted(_rows(inspect.instruments(), ["instrument", *INSTRUMENTS])),
        "sessions": sorted(_rows(inspect.sessions(), ["session_id", "account", "flags", "closed", "credential"])),
        "books": {
            int(number): _plain(inspect.depth(int(number), ALL_LEVELS))
            for number in sorted(inspect.instruments()["instrument"])
        },
        "killed": inspect.killed,
        "rules": machine.rules_version,
        "events": machine.event_sequence,
        "trades": machine.trade_count,
    }


def _rows(table: np.ndarray[Any, Any], names: list[str]) -> list[tuple[Any, ...]]:
    return [tuple(row[name].item() for name in names) for row in table]


def _plain(depth: Any) -> Any:
    return tuple([tuple(int(number) for number in level) for level in side] for side in depth)


def run_and_rebuild(steps: list[bytes]) -> tuple[Engine, EventReader, np.ndarray[Any, Any]]:
    machine, answers = run(Engine(), build_tape(steps))
    reader = EventReader(rules_version=NEWEST_RULES)
    reader.read(answers.events)
    return machine, reader, answers.events


@given(steps=STEPS)
def test_events_rebuild_the_state(steps: list[bytes]) -> None:
    engine, reader, _ = run_and_rebuild(steps)
    assert rebuilt_state(reader) == machine_state(engine), f"repeat: {hex_command(steps)}"


@pytest.mark.parametrize("seed", range(2))
def test_events_of_a_long_run_rebuild_the_state(seed: int) -> None:
    """Compared at every fifth batch, before later closes and cancels remove what differs."""
    engine, reader = Engine(), EventReader(rules_version=NEWEST_RULES)
    most_orders, hidden, stops, long_ids = 0, 0, 0, 0
    for number, batch in enumerate(build_tape(seeded_steps(seed, 2_000)).batches):
        reader.read(apply(engine, batch.commands, batch.time_ns).events)
        if number % 5 == 0:
            assert rebuilt_state(reader) == machine_state(engine)
            most_orders = max(most_orders, len(reader.orders))
            hidden += sum(0 < order.shown_lots < order.leaves_lots for order in reader.orders.values())
            stops += sum(order.is_stop for order in reader.orders.values())
            long_ids += sum(len(order.client_order_id) > 8 for order in reader.orders.values())
    assert rebuilt_state(reader) == machine_state(engine)
    assert engine.trade_count > 100
    assert min(most_orders, hidden, stops, long_ids) > 10


#: Kinds whose loss the reader must notice, by a contradiction or by its final state.
NOTICED_KINDS = [
    *(EventKind.TRADE, EventKind.CANCELLED, EventKind.NEW, EventKind.DEPOSITED, EventKind.REPLACED),
    *(EventKind.TRIGGERED, EventKind.EXPIRED, EventKind.PARTIALLY_FILLED, EventKind.RULES_SET, EventKind.LIMITS_SET),
    *(EventKind.CLIENT_ORDER_ID, EventKind.ORDER_TERMS),
    *(EventKind.STATUS_SET, EventKind.KILLED, EventKind.SESSION_OPENED, EventKind.ACCOUNT_SUSPENDED),
    *(EventKind.SESSION_CLOSED, EventKind.SESSION_EXPIRED, EventKind.FILLED),
    *(EventKind.CREDENTIAL_ADDED, EventKind.CREDENTIAL_SET, EventKind.CREDENTIAL_REVOKED),
    *(EventKind.CREDENTIAL_NETWORKS, EventKind.ACCOUNT_OPENED),
]


@pytest.mark.parametrize("kind", NOTICED_KINDS)
def test_reader_notices_a_missing_event(kind: EventKind) -> None:
    """One event is left out and its sequence closed up: the reader detects a contradiction or ends in another state."""
    _, answers = run(Engine(), build_tape(seeded_steps(1, 600)))
    events = answers.events
    positions = np.flatnonzero(events["kind"] == kind).tolist()
    assert any(is_noticed(events, position) for position in positions[::-1])


def is_noticed(events: np.ndarray[Any, Any], position: int) -> bool:
    """Whether the reader shows, by the end of the event's command, that the event is missing."""
    end = int(np.searchsorted(events["command_sequence"], events["command_sequence"][position], side="right"))
    complete, reduced = events[:end], np.delete(events[:end], position)
    reduced["sequence"] = np.arange(1, len(reduced) + 1)
    right, wrong = EventReader(rules_version=NEWEST_RULES), EventReader(rules_version=NEWEST_RULES)
    right.read(complete)
    try:
        wrong.read(reduced)
    except (AssertionError, KeyError):
        return True
    # Priorities are event sequences, which differ in any case.
    return {**rebuilt_state(wrong), "events": 0, "orders": 0} != {**rebuilt_state(right), "events": 0, "orders": 0}
