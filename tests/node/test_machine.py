"""The node's state machine: the same log gives the same state, snapshots carry it, and damage is refused."""

from collections.abc import Callable

import numpy as np
import pytest

from smrx.engine.codes import CommandKind, EventKind
from smrx.engine.records import COMMAND, pack_symbol
from smrx.node.machine import ExchangeMachine
from smrx.wire import batches

SESSION = 77


def setup_entry() -> bytes:
    rows = np.zeros(4, COMMAND)
    rows["kind"] = [
        CommandKind.OPEN_SESSION,
        CommandKind.ADD_ASSET,
        CommandKind.OPEN_ACCOUNT,
        CommandKind.DEPOSIT,
    ]
    rows["session_id"] = SESSION
    rows["request_id"] = [0, 1, 2, 3]
    rows["instrument"] = [0, 1, 0, 1]
    rows["client_order_id"][1] = pack_symbol("USD")
    rows["quantity_lots"] = [0, 2, 0, 1000]
    rows["account"] = [0, 0, 5, 5]
    rows["order_id"][3] = 9
    return batches.encode(rows.tobytes(), 1_000, 0, 0)


def deposit_entry(request_id: int) -> bytes:
    row = np.zeros(1, COMMAND)
    row["kind"], row["session_id"], row["request_id"] = CommandKind.DEPOSIT, SESSION, request_id
    row["instrument"], row["account"], row["order_id"], row["quantity_lots"] = 1, 5, 100 + request_id, 10
    return batches.encode(row.tobytes(), 2_000 + request_id, 0, 0)


def machine_after(entries: int) -> ExchangeMachine:
    machine = ExchangeMachine(1024, 1024)
    machine.apply(2, 1, setup_entry())
    for i in range(entries):
        machine.apply(3 + i, 1, deposit_entry(4 + i))
    return machine


def test_the_same_log_gives_the_same_digest_and_hash_and_another_log_does_not() -> None:
    a, b, shorter = machine_after(5), machine_after(5), machine_after(4)
    assert (a.log_digest, a.position()) == (b.log_digest, b.position())
    assert a.log_digest != shorter.log_digest
    assert a.position()[0] == 9


def test_applied_entries_come_out_once_in_log_order_with_their_events() -> None:
    machine = machine_after(2)
    applied = machine.take_applied()
    assert [entry.log_index for entry in applied] == [2, 3, 4]
    assert [entry.sequence for entry in applied] == [4, 5, 6]
    assert applied[1].events["kind"].tolist() == [EventKind.DEPOSITED]
    assert applied[-1].state_hash == machine.position()[1]
    assert machine.take_applied() == []


def test_a_barrier_changes_nothing_but_the_log() -> None:
    machine = machine_after(1)
    position, digest = machine.position(), machine.log_digest
    machine.apply(4, 1, batches.encode(b"", 9_000, 0, 0))
    assert machine.position() == position
    assert machine.log_digest != digest


def test_a_restored_machine_goes_on_as_if_it_had_applied_the_log_itself() -> None:
    whole, restored = machine_after(3), ExchangeMachine(1024, 1024)
    restored.restore(machine_after(2).snapshot())
    restored.apply(5, 1, deposit_entry(6))
    assert (restored.log_digest, restored.position()) == (whole.log_digest, whole.position())
    assert restored.snapshot() == whole.snapshot()
    assert restored.events.oldest == restored.events.newest == whole.events.newest


@pytest.mark.parametrize("damage", [lambda d: d[:-1], lambda d: b"", lambda d: d[:50] + bytes([d[50] ^ 1]) + d[51:]])
def test_a_damaged_snapshot_is_refused_and_nothing_is_replaced(damage: Callable[[bytes], bytes]) -> None:
    machine = machine_after(2)
    position = machine.position()
    with pytest.raises(ValueError, match="snapshot"):
        machine.restore(damage(machine_after(3).snapshot()))
    assert machine.position() == position


def test_hashes_between_are_the_hashes_at() -> None:
    machine = machine_after(4)
    hashes = machine.hashes_between(2, 7)
    assert hashes is not None
    assert list(hashes) == [machine.hash_at(n) for n in range(2, 8)]
