"""Every rejection of every kind of command, alone and in pairs: the first fault in order of precedence is reported."""

import itertools
from typing import Any, NamedTuple

import numpy as np
import pytest

from smrx.wire.codes import (
    COMMAND_TRAITS,
    CommandKind,
    CommandTraits,
    EventKind,
    OrderType,
    OutcomeStatus,
    Reason,
    Side,
    TimeInForce,
)
from smrx.wire.command_list import CommandList
from smrx.wire.records import COMMAND_SIZE, DETAILS, DETAILS_LAYOUTS, DETAILS_SIZE, EVENT_LAYOUTS
from tests import commands as make
from tests.any_rules import EngineOfAnyRules
from tests.commands import Commands, describe
from tests.oracle import Oracle, command_checks
from tests.property.rejection_setup import (
    ALICE,
    ALICE_SESSION,
    NOW_NS,
    PreparedVenue,
    Setup,
    meaningful_bytes,
    meaningful_details_bytes,
    offset_command,
)
from tests.property.rejection_table import NOT_VENUE, TABLE, CommandCase, Fault, cases, combined


class Machine(NamedTuple):
    """What makes a state machine, and the version of the rules with which it begins."""

    make: Any
    rules: int

    def __call__(self) -> Any:
        return self.make(rules=self.rules)

    def __str__(self) -> str:
        return f"{'oracle' if self.make is Oracle else 'engine'}-{self.rules}"


ALL_MACHINES = [Machine(make, rules) for rules in (2, 1) for make in (EngineOfAnyRules, Oracle)]
MACHINES = pytest.mark.parametrize("machine", ALL_MACHINES, ids=str)
#: Every kind of command that a version of the rules has, on both machines.
KINDS_OF_MACHINES = pytest.mark.parametrize(
    ("machine", "kind"),
    [
        pytest.param(machine, kind, id=f"{machine}-{kind.kind.name}")
        for machine in ALL_MACHINES
        for kind in cases(machine.rules)
    ],
)
ROWS = [
    pytest.param(machine, kind, fault, id=f"{machine}-{kind.kind.name}-{fault.reason.name}-{number}")
    for machine in ALL_MACHINES
    for kind in cases(machine.rules)
    for number, fault in enumerate(kind.faults)
]
#: Kind, details, session and request.
BYTES_OF_EVERY_KIND = {0, 6, 7, *range(8, 24)}
#: Not rejections: the reasons why an accepted order ended.
END_REASONS = {reason for reason in Reason if reason >= Reason.REQUESTED}


def command(kind: CommandCase, fault: Fault | None = None) -> Commands:
    fields = {**kind.good, **(fault.fields if fault else {})}
    session = fields.pop("session_id", kind.session)
    return offset_command(kind.kind, session, **fields)


class PreparedVenues:
    """One prepared venue for each setup: a rejected command leaves it unchanged."""

    def __init__(self, machine: Any) -> None:
        self.machine = machine
        self.known: dict[str, PreparedVenue] = {}

    def of(self, setup: Setup) -> PreparedVenue:
        name = repr(sorted(setup.items()))
        if name not in self.known:
            self.known[name] = PreparedVenue(self.machine(), setup)
        return self.known[name]


def rejection_reason(venue: PreparedVenue, commands: Commands) -> Reason:
    """Return the reason of a rejection, or of an accepted order that expires at once."""
    outcome = venue.try_command(commands)
    reason = Reason(int(outcome["reason"]))
    ended_at_once = outcome["event_kind"] == EventKind.EXPIRED and reason is Reason.FOK_UNFILLABLE
    assert outcome["status"] == OutcomeStatus.REJECTED or ended_at_once, f"not rejected: {text(commands)}"
    return reason


def text(commands: Commands) -> str:
    return describe(commands.records[0], commands.details)


@KINDS_OF_MACHINES
def test_valid_command_is_accepted(machine: Any, kind: CommandCase) -> None:
    """Otherwise the faults of the table would prove nothing."""
    assert PreparedVenue(machine(), {}).try_command(command(kind))["status"] == OutcomeStatus.ACCEPTED


@pytest.mark.parametrize(("machine", "kind", "fault"), ROWS)
def test_each_fault_alone(machine: Any, kind: CommandCase, fault: Fault) -> None:
    assert rejection_reason(PreparedVenue(machine(), fault.setup), command(kind, fault)) is fault.reason


def disagreements(machine: Any, kind: CommandCase) -> list[str]:
    """Return the pairs of faults for which a state machine does not report the first."""
    venues = PreparedVenues(machine)
    found = []
    for number, first in enumerate(kind.faults):
        for second in kind.faults[number + 1 :]:
            both = combined(first, second)
            if both is not None:
                record = command(kind, both)
                reason = rejection_reason(venues.of(both.setup), record)
                if reason is not first.reason:
                    pair = f"{first.reason.name} before {second.reason.name}"
                    found.append(f"{pair}: found {reason.name} for {text(record)} in {both.setup}")
    return found


@KINDS_OF_MACHINES
def test_each_pair_of_faults(machine: Any, kind: CommandCase) -> None:
    assert disagreements(machine, kind) == []


@MACHINES
def test_unknown_kind_is_reported_first(machine: Any) -> None:
    """Whatever other faults the command has."""
    venue = PreparedVenue(machine(), {"killed": True})
    unknown = (0, 27, 99, 255) if machine.rules >= 2 else (0, 23, 24, 25, 26, 99, 255)
    for kind in unknown:
        assert rejection_reason(venue, offset_command(kind, 999, details=1, side=9)) is Reason.UNKNOWN_KIND


#: Of a PLACE: an order for which every term has a meaning.
EVERY_TERM = {
    "order_type": OrderType.STOP_LIMIT, "tif": TimeInForce.GTD, "stop_price_ticks": 120, "display_lots": 5,
    "expiry_ns": 2 * NOW_NS,
}  # fmt: skip


def with_every_field(case: CommandCase, **fields: int) -> Commands:
    own = EVERY_TERM if case.kind is CommandKind.PLACE else {}
    return offset_command(case.kind, case.session, **{**case.good, **own, **fields})


@KINDS_OF_MACHINES
def test_every_byte_without_a_meaning_must_be_zero(machine: Any, kind: CommandCase) -> None:
    """Which bytes have one follows from the tables of fields in records.py, so that no new field is forgotten here."""
    venue = PreparedVenue(machine(), {})
    names = [f"byte_{at}" for at in range(COMMAND_SIZE) if at not in meaningful_bytes(kind.kind, machine.rules)]
    if kind.kind in DETAILS_LAYOUTS:
        used = meaningful_details_bytes(kind.kind, machine.rules)
        names += [f"details_byte_{at}" for at in range(DETAILS_SIZE) if at not in used]
    accepted = []
    for name, value in itertools.product(names, (1, 0x80)):
        outcome = venue.try_command(with_every_field(kind, **{name: value}))
        if outcome["reason"] != Reason.RESERVED_NOT_ZERO:
            accepted.append((name, value, Reason(int(outcome["reason"])).name))
    assert accepted == []


@KINDS_OF_MACHINES
def test_every_byte_with_a_meaning_may_be_set(machine: Any, kind: CommandCase) -> None:
    """Whatever else is wrong with the command then."""
    # In another order type or time in force, terms can be without a meaning.
    left_out = BYTES_OF_EVERY_KIND | ({2, 3} if kind.kind is CommandKind.PLACE else set())
    names = [f"byte_{at}" for at in sorted(meaningful_bytes(kind.kind, machine.rules) - left_out)]
    names += [f"details_byte_{at}" for at in sorted(meaningful_details_bytes(kind.kind, machine.rules))]
    venue = PreparedVenue(machine(), {})
    refused = [
        (name, value)
        for name, value in itertools.product(names, (1, 0x80))
        if venue.try_command(with_every_field(kind, **{name: value}))["reason"] == Reason.RESERVED_NOT_ZERO
    ]
    assert refused == []


@KINDS_OF_MACHINES
def test_details_of_kinds_without_any_are_invalid(machine: Any, kind: CommandCase) -> None:
    """Also where the list has the details that the command names."""
    records = command(kind).records
    records["details"] = 1
    outcome = PreparedVenue(machine(), {}).try_command(CommandList(records, np.zeros(1, DETAILS)))
    assert (outcome["reason"] == Reason.INVALID_DETAILS) == (kind.kind not in DETAILS_LAYOUTS)


@MACHINES
@pytest.mark.parametrize("numbers", [[1, 2], [2, 1], [2, 2], [1, 0]], ids=str)
def test_each_command_has_the_details_that_it_names(machine: Any, numbers: list[int]) -> None:
    """Two commands, also with each other's details, with the same ones, and one without."""
    venue = PreparedVenue(machine(), {})
    both = make.join(
        [
            make.place(venue.sender(ALICE_SESSION), ALICE, Side.SELL, 5, 140 + at, client_order_id=f"a long id {at}")
            for at in (1, 2)
        ]
    )
    both.records["details"] = numbers
    events = make.apply(venue.machine, both, NOW_NS).events
    texts = events.view(EVENT_LAYOUTS[EventKind.CLIENT_ORDER_ID])[events["kind"] == EventKind.CLIENT_ORDER_ID]
    assert texts["client_order_id"].tolist() == [f"a long id {number}".encode() for number in numbers if number]
    reasons = events["reason"][(events["kind"] == EventKind.NEW) | (events["kind"] == EventKind.REJECTED)]
    assert reasons.tolist() == [0, Reason.DUPLICATE_CLIENT_ORDER_ID if numbers == [2, 2] else 0]


@KINDS_OF_MACHINES
@pytest.mark.parametrize(
    ("setup", "reason"),
    [
        ({"killed": True}, Reason.KILLED),
        ({"suspended": True}, Reason.ACCOUNT_SUSPENDED),
        ({"halted": True}, Reason.INSTRUMENT_NOT_TRADING),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_restriction_stops_the_kinds_of_the_table_and_no_other(
    machine: Any, kind: CommandCase, setup: Setup, reason: Reason
) -> None:
    outcome = PreparedVenue(machine(), setup).try_command(command(kind))
    stopped = any(fault.reason is reason for fault in kind.faults)
    assert outcome["status"] == (OutcomeStatus.REJECTED if stopped else OutcomeStatus.ACCEPTED)


@pytest.mark.parametrize("kind", cases(2), ids=lambda kind: kind.kind.name)
def test_traits_of_a_kind_agree_with_its_rejections(kind: CommandCase) -> None:
    """What codes.py says of a kind follows from its faults in the table, which both machines show."""
    reasons = {fault.reason for fault in kind.faults}
    traits = COMMAND_TRAITS[kind.kind]
    unknown_accounts = [fault for fault in kind.faults if fault.reason is Reason.UNKNOWN_ACCOUNT]
    without_details = [fault.fields for fault in kind.faults if fault.reason is Reason.INVALID_DETAILS]
    expected = {
        CommandTraits.VENUE_ONLY: NOT_VENUE in kind.faults,
        CommandTraits.PASSES_HALT: Reason.INSTRUMENT_NOT_TRADING not in reasons,
        CommandTraits.PASSES_KILL: Reason.KILLED not in reasons,
        CommandTraits.NUMBERED: Reason.REQUEST_GAP in reasons,
        CommandTraits.NAMES_ACCOUNT: any("account" in fault.fields for fault in unknown_accounts),
        CommandTraits.ACTIVE_ACCOUNT: Reason.ACCOUNT_SUSPENDED in reasons,
        CommandTraits.MAY_HAVE_DETAILS: kind.kind in DETAILS_LAYOUTS,
        CommandTraits.MUST_HAVE_DETAILS: {"details": 0} in without_details,
    }
    assert {trait: bool(traits & trait) for trait in expected} == expected


def test_table_has_every_reason_and_every_kind() -> None:
    shown = {fault.reason for kind in TABLE for fault in kind.faults} | {Reason.UNKNOWN_KIND}
    assert [reason.name for reason in Reason if reason not in shown | END_REASONS | {Reason.NONE}] == []
    assert [kind.name for kind in CommandKind if kind not in {row.kind for row in TABLE}] == []


def test_wrong_order_of_checks_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """An oracle that checks the kill switch after the account."""
    kill_switch, account = command_checks.kill_switch, command_checks.account
    monkeypatch.setattr(command_checks, "kill_switch", account)
    monkeypatch.setattr(command_checks, "account", kill_switch)
    place = next(kind for kind in cases(2) if kind.kind is CommandKind.PLACE)
    found = "\n".join(disagreements(Oracle, place))
    assert "KILLED before UNKNOWN_ACCOUNT: found UNKNOWN_ACCOUNT" in found
    assert len(found.splitlines()) == 2


def test_impossible_setup_raises() -> None:
    with pytest.raises(ValueError, match=r"preparation: expected .* to be accepted"):
        PreparedVenue(Oracle(), {"rules": {"band_bp": 10_001}})
