"""Every refusal of every kind of command, alone and two at a time: the earlier one is the reason reported."""

from typing import Any

import pytest

from smrx.engine import Engine
from smrx.wire.codes import CommandKind, EventKind, OutcomeStatus, Reason
from tests.commands import Commands, describe
from tests.oracle import Oracle, refusals
from tests.property.refusal_table import TABLE, Kind, Wrong, together
from tests.property.refusal_world import Desk, World, empty

MACHINES = pytest.mark.parametrize("machine", [Engine, Oracle], ids=["engine", "oracle"])
KINDS = pytest.mark.parametrize("kind", TABLE, ids=lambda kind: kind.kind.name)
ROWS = [
    pytest.param(kind, wrong, id=f"{kind.kind.name}-{wrong.reason.name}-{number}")
    for kind in TABLE
    for number, wrong in enumerate(kind.wrong)
]
#: No refusals, for they are why an accepted order ended.
ENDS = {reason for reason in Reason if reason >= Reason.REQUESTED}


def command(kind: Kind, wrong: Wrong | None = None) -> Commands:
    fields = {**kind.good, **(wrong.fields if wrong else {})}
    session = fields.pop("session_id", kind.session)
    return empty(kind.kind, session, **fields)


class Desks:
    """One machine for each world: a refused command leaves it as it was."""

    def __init__(self, machine: Any) -> None:
        self.machine = machine
        self.known: dict[str, Desk] = {}

    def of(self, world: World) -> Desk:
        name = repr(sorted(world.items()))
        if name not in self.known:
            self.known[name] = Desk(self.machine(), world)
        return self.known[name]


def reason_of(desk: Desk, record: Commands) -> Reason:
    """The reason a command is given; also where it is accepted and its order ends at once."""
    outcome = desk.ask(record)
    reason = Reason(int(outcome["reason"]))
    ended_at_once = outcome["event_kind"] == EventKind.EXPIRED and reason is Reason.FOK_UNFILLABLE
    assert outcome["status"] == OutcomeStatus.REJECTED or ended_at_once, f"not refused: {describe(record[0])}"
    return reason


@MACHINES
@KINDS
def test_the_good_command_is_accepted(machine: Any, kind: Kind) -> None:
    """Else a row of the table would prove nothing."""
    assert Desk(machine(), {}).ask(command(kind))["status"] == OutcomeStatus.ACCEPTED


@MACHINES
@pytest.mark.parametrize(("kind", "wrong"), ROWS)
def test_one_thing_wrong(machine: Any, kind: Kind, wrong: Wrong) -> None:
    assert reason_of(Desk(machine(), wrong.world), command(kind, wrong)) is wrong.reason


def disagreements(machine: Any, kind: Kind) -> list[str]:
    """Pairs of wrongs for which a machine does not give the reason of the earlier one."""
    desks = Desks(machine)
    found = []
    for number, first in enumerate(kind.wrong):
        for second in kind.wrong[number + 1 :]:
            both = together(first, second)
            if both is not None:
                record = command(kind, both)
                reason = reason_of(desks.of(both.world), record)
                if reason is not first.reason:
                    pair = f"{first.reason.name} before {second.reason.name}"
                    found.append(f"{pair}: found {reason.name} for {describe(record[0])} in {both.world}")
    return found


@MACHINES
@KINDS
def test_two_things_wrong(machine: Any, kind: Kind) -> None:
    assert disagreements(machine, kind) == []


@MACHINES
def test_a_kind_that_is_not_known(machine: Any) -> None:
    """Whatever else is wrong with it."""
    desk = Desk(machine(), {"killed": True})
    for kind in (0, 21, 255):
        assert reason_of(desk, empty(kind, 999, reserved=1, side=9)) is Reason.UNKNOWN_KIND


@MACHINES
@pytest.mark.parametrize(
    "world", [{"killed": True}, {"suspended": True}, {"halted": True}], ids=lambda world: str(world)
)
def test_cancels_always_pass(machine: Any, world: World) -> None:
    for kind in TABLE:
        if kind.kind in (CommandKind.CANCEL, CommandKind.MASS_CANCEL):
            assert Desk(machine(), world).ask(command(kind))["status"] == OutcomeStatus.ACCEPTED


def test_the_table_has_every_reason_and_every_kind() -> None:
    shown = {wrong.reason for kind in TABLE for wrong in kind.wrong} | {Reason.UNKNOWN_KIND}
    assert [reason.name for reason in Reason if reason not in shown | ENDS | {Reason.NONE}] == []
    assert [kind.name for kind in CommandKind if kind not in {row.kind for row in TABLE}] == []


def test_a_wrong_order_of_checks_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """An oracle that looks at the kill switch after the account."""
    kill_switch, account = refusals.kill_switch, refusals.account
    monkeypatch.setattr(refusals, "kill_switch", account)
    monkeypatch.setattr(refusals, "account", kill_switch)
    place = next(kind for kind in TABLE if kind.kind is CommandKind.PLACE)
    found = "\n".join(disagreements(Oracle, place))
    assert "KILLED before UNKNOWN_ACCOUNT: found UNKNOWN_ACCOUNT" in found
    assert len(found.splitlines()) == 2


def test_a_world_that_cannot_be_is_an_error_of_the_table() -> None:
    with pytest.raises(ValueError, match=r"preparation: expected .* to be accepted"):
        Desk(Oracle(), {"rules": {"band_bp": 10_001}})
