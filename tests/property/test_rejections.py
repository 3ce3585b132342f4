"""Every rejection of every kind of command, alone and in pairs: the first fault in order of precedence is reported."""

from typing import Any

import pytest

from smrx.wire.codes import CommandKind, EventKind, OutcomeStatus, Reason
from tests.any_rules import EngineOfAnyRules
from tests.commands import Commands, describe
from tests.oracle import Oracle, command_checks
from tests.property.rejection_setup import PreparedVenue, Setup, offset_command
from tests.property.rejection_table import TABLE, CommandCase, Fault, combined

MACHINES = pytest.mark.parametrize("machine", [EngineOfAnyRules, Oracle], ids=["engine", "oracle"])
KINDS = pytest.mark.parametrize("kind", TABLE, ids=lambda kind: kind.kind.name)
ROWS = [
    pytest.param(kind, fault, id=f"{kind.kind.name}-{fault.reason.name}-{number}")
    for kind in TABLE
    for number, fault in enumerate(kind.faults)
]
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


def rejection_reason(venue: PreparedVenue, record: Commands) -> Reason:
    """Return the reason of a rejection, or of an accepted order that expires at once."""
    outcome = venue.try_command(record)
    reason = Reason(int(outcome["reason"]))
    ended_at_once = outcome["event_kind"] == EventKind.EXPIRED and reason is Reason.FOK_UNFILLABLE
    assert outcome["status"] == OutcomeStatus.REJECTED or ended_at_once, f"not rejected: {describe(record[0])}"
    return reason


@MACHINES
@KINDS
def test_valid_command_is_accepted(machine: Any, kind: CommandCase) -> None:
    """Otherwise the faults of the table would prove nothing."""
    assert PreparedVenue(machine(), {}).try_command(command(kind))["status"] == OutcomeStatus.ACCEPTED


@MACHINES
@pytest.mark.parametrize(("kind", "fault"), ROWS)
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
                    found.append(f"{pair}: found {reason.name} for {describe(record[0])} in {both.setup}")
    return found


@MACHINES
@KINDS
def test_each_pair_of_faults(machine: Any, kind: CommandCase) -> None:
    assert disagreements(machine, kind) == []


@MACHINES
def test_unknown_kind_is_reported_first(machine: Any) -> None:
    """Whatever other faults the command has."""
    venue = PreparedVenue(machine(), {"killed": True})
    for kind in (0, 22, 255):
        assert rejection_reason(venue, offset_command(kind, 999, reserved=1, side=9)) is Reason.UNKNOWN_KIND


@MACHINES
@pytest.mark.parametrize(
    "setup", [{"killed": True}, {"suspended": True}, {"halted": True}], ids=lambda setup: str(setup)
)
def test_cancels_are_always_accepted(machine: Any, setup: Setup) -> None:
    for kind in TABLE:
        if kind.kind in (CommandKind.CANCEL, CommandKind.MASS_CANCEL):
            assert PreparedVenue(machine(), setup).try_command(command(kind))["status"] == OutcomeStatus.ACCEPTED


def test_table_has_every_reason_and_every_kind() -> None:
    shown = {fault.reason for kind in TABLE for fault in kind.faults} | {Reason.UNKNOWN_KIND}
    assert [reason.name for reason in Reason if reason not in shown | END_REASONS | {Reason.NONE}] == []
    assert [kind.name for kind in CommandKind if kind not in {row.kind for row in TABLE}] == []


def test_wrong_order_of_checks_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """An oracle that checks the kill switch after the account."""
    kill_switch, account = command_checks.kill_switch, command_checks.account
    monkeypatch.setattr(command_checks, "kill_switch", account)
    monkeypatch.setattr(command_checks, "account", kill_switch)
    place = next(kind for kind in TABLE if kind.kind is CommandKind.PLACE)
    found = "\n".join(disagreements(Oracle, place))
    assert "KILLED before UNKNOWN_ACCOUNT: found UNKNOWN_ACCOUNT" in found
    assert len(found.splitlines()) == 2


def test_impossible_setup_raises() -> None:
    with pytest.raises(ValueError, match=r"preparation: expected .* to be accepted"):
        PreparedVenue(Oracle(), {"rules": {"band_bp": 10_001}})
