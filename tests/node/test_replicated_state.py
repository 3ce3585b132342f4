"""The replicated state: equal logs give equal states, snapshots restore them, damaged ones are refused."""

import os
from collections.abc import Callable

import pytest

from smrx.consensus.forking import fork
from smrx.node.replicated_state import ReplicatedState
from smrx.wire import batches
from smrx.wire.codes import CommandKind, EventKind, SessionFlags, Side, TimeInForce
from smrx.wire.command_list import CommandList, join
from tests import commands

SESSION = 77


def entry_of(*parts: CommandList, time_ns: int) -> bytes:
    records, details = join(parts)
    return batches.encode(records.tobytes(), time_ns, 0, 0, details.tobytes())


def setup_entry() -> bytes:
    return entry_of(
        commands.open_session(SESSION, 0),
        commands.add_asset((SESSION, 1), 1, "USD", 2),
        commands.open_account((SESSION, 2), 5),
        commands.deposit((SESSION, 3), 5, 1, 1000, 9),
        time_ns=1_000,
    )


def deposit_entry(request_id: int) -> bytes:
    return entry_of(commands.deposit((SESSION, request_id), 5, 1, 10, 100 + request_id), time_ns=2_000 + request_id)


def machine_after(entries: int) -> ReplicatedState:
    state = ReplicatedState(1024)
    state.apply(2, 1, setup_entry())
    for i in range(entries):
        state.apply(3 + i, 1, deposit_entry(4 + i))
    return state


def test_equal_logs_give_equal_digests_and_other_logs_do_not() -> None:
    a, b, shorter = machine_after(5), machine_after(5), machine_after(4)
    assert (a.log_digest, a.position()) == (b.log_digest, b.position())
    assert a.log_digest != shorter.log_digest
    assert a.position()[0] == 9


def test_applied_entries_are_returned_once_in_log_order() -> None:
    state = machine_after(2)
    applied = state.take_applied()
    assert [entry.log_index for entry in applied] == [2, 3, 4]
    assert [entry.sequence for entry in applied] == [4, 5, 6]
    assert applied[1].events["kind"].tolist() == [EventKind.DEPOSITED]
    assert applied[-1].state_hash == state.position()[1]
    assert state.take_applied() == []


def test_barrier_changes_only_the_log() -> None:
    state = machine_after(1)
    position, digest = state.position(), state.log_digest
    state.apply(4, 1, batches.encode(b"", 9_000, 0, 0))
    assert state.position() == position
    assert state.log_digest != digest


def test_restored_state_continues_as_if_it_had_applied_the_log() -> None:
    whole, restored = machine_after(3), ReplicatedState(1024)
    restored.restore(machine_after(2).snapshot())
    restored.apply(5, 1, deposit_entry(6))
    assert (restored.log_digest, restored.position()) == (whole.log_digest, whole.position())
    assert restored.snapshot() == whole.snapshot()
    assert restored.events.oldest == restored.events.newest == whole.events.newest


@pytest.mark.parametrize("damage", [lambda d: d[:-1], lambda d: b"", lambda d: d[:50] + bytes([d[50] ^ 1]) + d[51:]])
def test_damaged_snapshot_is_refused_and_nothing_is_replaced(damage: Callable[[bytes], bytes]) -> None:
    state = machine_after(2)
    position = state.position()
    with pytest.raises(ValueError, match="snapshot"):
        state.restore(damage(machine_after(3).snapshot()))
    assert state.position() == position


def test_hashes_between_equal_hash_at() -> None:
    state = machine_after(4)
    hashes = state.hashes_between(2, 7)
    assert hashes is not None
    assert list(hashes) == [state.hash_at(n) for n in range(2, 8)]


def test_cancel_on_disconnect_sessions_and_those_with_orders() -> None:
    state = machine_after(0)
    assert state.cancel_on_disconnect_sessions() == []
    flags = (SessionFlags.CANCEL_ON_DISCONNECT, SessionFlags.CANCEL_ON_DISCONNECT, 0)
    opening = join(
        [commands.open_session(*opened) for opened in zip((11, 2**64 - 1, 13), (5,) * 3, flags, strict=True)]
    )
    listed = commands.add_instrument((SESSION, 5), 1, "X-USD", base_asset=2, quote_asset=1)
    base = join([commands.add_asset((SESSION, 4), 2, "X"), listed])
    orders = join(
        [
            commands.place((2**64 - 1, 1), 5, Side.BUY, 1, 10, tif=TimeInForce.GTD, expiry_seconds=70),
            commands.place((13, 1), 5, Side.BUY, 1, 10, client_order_id="a client order id"),
        ]
    )
    for index, part in enumerate((opening, base, orders)):
        state.apply(3 + index, 1, entry_of(part, time_ns=5_000))
        assert set(state.take_applied()[-1].outcomes["reason"].tolist()) == {0}
    assert sorted(state.cancel_on_disconnect_sessions()) == [11, 2**64 - 1]
    assert [state.orders_ending_with(session) > 0 for session in (2**64 - 1, 77)] == [True, False]
    assert state.next_expiry_ns == 70_000_000_000
    restored = ReplicatedState(1024)
    restored.restore(state.snapshot())
    assert restored.engine.inspect.orders()["client_order_id"].tolist() == [b"", b"a client order id"]
    assert restored.orders_ending_with(2**64 - 1) == state.orders_ending_with(2**64 - 1)
    assert restored.next_expiry_ns == 70_000_000_000
    made = state.engine.inspect.transfers(5)
    assert made.tolist() == [(9, 5, 1, CommandKind.DEPOSIT, 1000, 1000)]
    [_, account] = state.engine.inspect.accounts()
    assert (account["account"], account["open_orders"]) == (5, 2)


def test_forked_child_without_the_other_arrays_has_all_snapshot_parts() -> None:
    """Entries that are applied and not yet in a ring are included."""

    def filled() -> ReplicatedState:
        state = ReplicatedState(1 << 16)
        state.apply(1, 1, setup_entry())
        for index in range(2, 40):
            state.apply(index, 1, deposit_entry(index + 10))
        return state

    expected = {name: b"".join(parts) for name, parts in filled().snapshot_parts().items()}
    state = filled()
    beside = state.arrays_outside_snapshots()
    assert sum(array.nbytes for array in beside) > (8 << 20) - (1 << 20)
    pid = fork(beside)
    if pid == 0:
        found = {name: b"".join(parts) for name, parts in state.snapshot_parts().items()}
        os._exit(0 if found == expected else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
