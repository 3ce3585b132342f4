"""What clients may ask of a node: rates, sessions, kept answers, and what a connection has waiting."""

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from smrx.config import Limits
from smrx.node.client_limits import ClientLimits, ConnectionUse, SessionCounts, TokenBuckets
from smrx.node.entry_kernels import COMMANDS
from smrx.node.order_entry import OrderEntry
from smrx.node.principal import EVERYTHING, Principal
from smrx.wire import frames
from smrx.wire.codes import ALL_PERMISSIONS, CommandKind, EventKind, Scope
from smrx.wire.command_list import CommandList
from smrx.wire.frames import ErrorCode, FrameKind
from smrx.wire.records import COMMAND, EVENT
from tests import commands as make
from tests.node.test_order_entry import FOLLOWING, LEADING, applied, decoded_replies, outcomes_of, submit_all

SECOND_NS = 1_000_000_000
#: A credential for all accounts.
STAFF = Principal(4, ALL_PERMISSIONS, Scope.ALL, 0)


def rows(count: int, session: int = 7, account: int = 3) -> np.ndarray:
    found = np.zeros(count, COMMAND)
    found["kind"], found["session_id"], found["account"] = CommandKind.PLACE, session, account
    return found


def entry(limits: Limits) -> tuple[OrderEntry, ClientLimits]:
    client_limits = ClientLimits(limits)
    return OrderEntry(1, 1 << 30, limits=client_limits), client_limits


def sent(
    order_entry: OrderEntry,
    commands: np.ndarray | CommandList,
    *,
    identity: bytes = b"A",
    now_ns: int = SECOND_NS,
    principal: Principal = STAFF,
) -> str:
    """Send a frame; return why it was refused as LIMITED, or an empty text."""
    listed = commands if isinstance(commands, CommandList) else CommandList(commands)
    order_entry.receive(identity, frames.encode_commands(listed, 9), LEADING, None, principal, now_ns)
    replies = decoded_replies(order_entry)
    if not replies:
        return ""
    ((to, frame),) = replies
    assert (to, frame.kind, frame.correlation) == (identity, FrameKind.ERROR, 9)
    body = frames.error_body(frame)
    assert body.code == ErrorCode.LIMITED, body
    return body.message


@given(
    st.integers(1, 10**9),
    st.lists(st.tuples(st.integers(1, 5000), st.integers(0, 3 * SECOND_NS)), min_size=1, max_size=30),
)
def test_rate_is_kept_exactly_over_every_interval(rate: int, takes: list[tuple[int, int]]) -> None:
    """No interval sees more than a second's worth and what the rate gives in it; what is asked to wait fits then."""
    buckets, now, taken = TokenBuckets(rate), 0, []
    for count, pause in takes:
        now += pause
        if count > rate:
            assert buckets.wait_ns(1, count, now) > 0
            continue
        wait = buckets.wait_ns(1, count, now)
        if wait:
            # Not a nanosecond earlier.
            assert buckets.wait_ns(1, count, now + wait - 1) == 1
            now += wait
        assert buckets.wait_ns(1, count, now) == 0
        buckets.take(1, count, now)
        taken.append((now, count))
    for first in range(len(taken)):
        for last in range(first, len(taken)):
            span = taken[last][0] - taken[first][0]
            total = sum(count for _, count in taken[first : last + 1])
            assert total * SECOND_NS <= rate * SECOND_NS + rate * span


def test_buckets_of_many_keys_take_bounded_memory() -> None:
    buckets = TokenBuckets(4096)
    for key in range(200_000):
        buckets.take(key, 1, SECOND_NS)
    assert len(buckets.table.cells) <= 1 << 17


def test_session_that_sends_too_fast_is_refused_and_told_when_to_come_back() -> None:
    order_entry, _ = entry(Limits(session_commands_per_second=4096))
    assert sent(order_entry, rows(4096)) == ""
    assert "session 7 may send 4096 commands a second; send this frame again after 250 ms" in sent(
        order_entry, rows(1024)
    )
    # Other sessions, and the same one later, are not affected.
    assert sent(order_entry, rows(4096, session=8)) == ""
    assert sent(order_entry, rows(1024), now_ns=SECOND_NS + SECOND_NS // 4) == ""
    assert sent(order_entry, rows(1), now_ns=SECOND_NS + SECOND_NS // 4) != ""


def test_refused_frame_changes_no_count() -> None:
    order_entry, limits = entry(Limits(account_commands_per_second=4096))
    mixed = np.concatenate([rows(2048, session=7), rows(2049, session=8)])[:4096]
    assert sent(order_entry, mixed) == ""
    assert "account 3" in sent(order_entry, rows(1, session=9))
    # The session's own bucket is untouched by what the account's refused.
    assert limits._sessions.wait_ns(9, Limits().session_commands_per_second, SECOND_NS) == 0
    assert order_entry.waiting_commands == 4096


def test_account_is_limited_over_all_of_its_sessions() -> None:
    order_entry, _ = entry(Limits(account_commands_per_second=5000))
    assert sent(order_entry, rows(4000, session=7)) == ""
    assert "account 3 may send 5000" in sent(order_entry, rows(2000, session=8))
    both = rows(2000, session=9)
    both["account"][::2] = 4
    assert sent(order_entry, both) == ""


def test_no_client_uses_up_the_allowance_of_another_account() -> None:
    order_entry, _ = entry(Limits(account_commands_per_second=4096))
    thief = Principal(5, ALL_PERMISSIONS, Scope.ACCOUNT, 9)
    firm = Principal(6, ALL_PERMISSIONS, Scope.FIRM, 1, {3: 2, 9: 1}.__getitem__)
    assert sent(order_entry, rows(4096, account=3), principal=thief) == ""
    # What the thief sent counts for its own account, whatever it names.
    assert "account 9" in sent(order_entry, rows(1, account=3), principal=thief)
    assert sent(order_entry, rows(4096, session=8, account=3), principal=firm) == ""
    assert sent(order_entry, rows(4096, session=9, account=3)) == ""


def test_naming_accounts_of_others_is_no_escape() -> None:
    order_entry, _ = entry(Limits(account_commands_per_second=4096))
    firm = Principal(6, ALL_PERMISSIONS, Scope.FIRM, 1, {3: 2, 4: 2, 9: 1}.__getitem__)
    assert sent(order_entry, rows(4096, session=8, account=3), principal=firm) == ""
    refused = sent(order_entry, rows(1, session=9, account=4), principal=firm)
    assert "credential 6, for accounts of others, may send 4096 commands a second" in refused
    assert sent(order_entry, rows(4096, session=9, account=9), principal=firm) == ""


def test_credential_leaves_room_for_others_over_all_of_its_connections() -> None:
    """n credentials that send without end leave an (n + 1)th part of what may wait, and get it back when answered."""
    order_entry = OrderEntry(1, 9_000)
    greedy, other = (Principal(number, ALL_PERMISSIONS, Scope.ACCOUNT, number) for number in (5, 6))

    def accepted(principal: Principal) -> int:
        count = 0
        while True:
            commands = frames.encode_commands(CommandList(rows(100)), 9)
            order_entry.receive(b"%d" % count, commands, LEADING, None, principal)
            if decoded_replies(order_entry):
                return 100 * count
            count += 1

    assert accepted(greedy) == 4_500
    assert accepted(other) == 2_300
    assert accepted(greedy) == 0
    # A node without keys knows no credentials.
    assert accepted(EVERYTHING) == 2_200
    batch = submit_all(order_entry, 8, 5)
    order_entry.applied(applied(8, 5, outcomes_of(batch, 1)))
    order_entry.take_replies()
    assert not order_entry._waiting_of.cells[:, COMMANDS].any()
    assert accepted(other) == 4_500
    order_entry.lost_leadership(FOLLOWING)
    assert not order_entry._waiting_of.cells[:, COMMANDS].any()


def test_rates_are_of_credentials() -> None:
    """A node without keys cannot tell one sender from another, and the venue's own keys load whole markets."""
    order_entry, _ = entry(Limits(session_commands_per_second=4096, account_commands_per_second=4096))
    for _ in range(3):
        assert sent(order_entry, rows(4096), principal=EVERYTHING) == ""


def opening(session: int, account: int, answers: int = 16) -> CommandList:
    return make.open_session(session, account, answers=answers)


def opened(*sessions: tuple[int, int], kind: EventKind = EventKind.SESSION_OPENED) -> np.ndarray:
    events = np.zeros(len(sessions), EVENT)
    events["kind"] = kind
    events["session_id"], events["account"] = zip(*sessions, strict=True)
    return events


def test_sessions_of_an_account_are_bounded_also_while_they_are_being_opened() -> None:
    order_entry, limits = entry(Limits(account_sessions=2))
    assert sent(order_entry, opening(1, 3)) == ""
    assert sent(order_entry, opening(2, 3)) == ""
    assert sent(order_entry, opening(3, 3)) == "account 3 has 2 open sessions, and it may have 2"
    assert sent(order_entry, opening(3, 4)) == ""
    batch = submit_all(order_entry, 8, 5)
    limits.session_counts.applied(opened((1, 3), (2, 3), (3, 4)))
    order_entry.applied(applied(8, 5, outcomes_of(batch, 1)))
    order_entry.take_replies()
    assert sent(order_entry, opening(4, 3)) != ""
    # A session that is open may be resumed; one that ended makes room.
    assert sent(order_entry, opening(1, 3)) == ""
    limits.session_counts.applied(opened((2, 3), kind=EventKind.SESSION_EXPIRED))
    assert sent(order_entry, opening(4, 3)) == ""


def test_session_that_was_refused_by_the_exchange_or_lost_makes_room() -> None:
    order_entry, limits = entry(Limits(account_sessions=1))
    assert sent(order_entry, opening(1, 3)) == ""
    batch = submit_all(order_entry, 8, 5)
    order_entry.applied(applied(8, 5, outcomes_of(batch, 1)))
    order_entry.take_replies()
    assert sent(order_entry, opening(2, 3)) == ""
    order_entry.lost_leadership(FOLLOWING)
    order_entry.take_replies()
    assert limits.session_counts.count(3) == 0


def test_many_sessions_in_one_frame_are_counted() -> None:
    order_entry, _ = entry(Limits(account_sessions=3))
    every = np.concatenate([opening(number, 3).records for number in range(1, 5)])
    assert "account 3 has 0 open sessions, and it may have 3" in sent(order_entry, every)
    assert sent(order_entry, every[:3]) == ""


def test_counts_begin_with_the_open_sessions_of_the_state() -> None:
    counts = SessionCounts()
    sessions = np.zeros(3, [("session_id", "<u8"), ("account", "<u4"), ("closed", "u1")])
    sessions["session_id"], sessions["account"], sessions["closed"] = (1, 2, 3), (7, 7, 7), (0, 1, 0)
    counts.restart(sessions)
    assert counts.count(7) == 2


def test_session_cannot_ask_for_more_answers_than_allowed() -> None:
    order_entry, _ = entry(Limits(session_answers=256))
    assert sent(order_entry, opening(1, 3, answers=257)) == "a session may ask to keep 256 answers, found 257"
    assert sent(order_entry, opening(1, 3, answers=256)) == ""


def test_unanswered_commands_of_a_connection_are_bounded() -> None:
    order_entry, _ = entry(Limits(connection_commands=4096))
    assert sent(order_entry, rows(4000)) == ""
    assert "4000 commands of this connection are not answered yet, and it may have 4096" in sent(order_entry, rows(97))
    assert sent(order_entry, rows(97), identity=b"B") == ""
    batch = submit_all(order_entry, 8, 5)
    order_entry.applied(applied(8, 5, outcomes_of(batch, 1)))
    order_entry.take_replies()
    assert sent(order_entry, rows(4096)) == ""


def test_bytes_of_a_connection_are_bounded_with_the_answers_that_it_does_not_read() -> None:
    order_entry, limits = entry(Limits(connection_bytes=1 << 20))
    limits.use.add(b"A", (1 << 20) - 64)
    assert sent(order_entry, rows(1)) == ""
    assert "1048576 bytes of commands of this connection wait" in sent(order_entry, rows(1))


def test_counts_of_connections_that_have_nothing_waiting_take_no_memory() -> None:
    use = ConnectionUse()
    before = len(use.table.cells)
    for number in range(10_000):
        identity = number.to_bytes(4, "little")
        use.add(identity, 100, 5)
        use.add(identity, -100, -5)
    assert len(use.table.cells) == before


@pytest.mark.parametrize("count", [1, 3])
def test_session_of_another_credential_is_forbidden_on_a_node_with_keys(count: int) -> None:
    order_entry = OrderEntry(1, 1 << 30, has_keys=True)
    sender = Principal(5, ALL_PERMISSIONS, Scope.ACCOUNT, 3)
    for credential, last, refused in ((5, 5, False), (6, 6, True), (0, 0, True), (5, 6, True)):
        commands = rows(count, session=credential << 32 | 77)
        commands["session_id"][-1] = last << 32 | 77
        order_entry.receive(b"A", frames.encode_commands(CommandList(commands), 9), LEADING, None, sender)
        replies = decoded_replies(order_entry)
        if refused:
            ((_, frame),) = replies
            assert frames.error_body(frame).code == ErrorCode.FORBIDDEN
            assert "another credential" in frames.error_body(frame).message
        elif last == credential:
            assert replies == []
    assert order_entry.take_active_sessions() == {5 << 32 | 77}


def test_ping_keeps_only_a_session_of_the_senders_credential_alive() -> None:
    order_entry = OrderEntry(1, 1 << 30, has_keys=True)
    sender = Principal(5, ALL_PERMISSIONS, Scope.ACCOUNT, 3)
    for session in (6 << 32 | 1, 1, 5 << 32 | 1, 0):
        order_entry.receive(b"A", frames.encode(FrameKind.PING, aux=session), FOLLOWING, None, sender)
    kinds = [frame.kind for _, frame in decoded_replies(order_entry)]
    assert kinds == [FrameKind.ERROR, FrameKind.ERROR, FrameKind.PONG, FrameKind.PONG]
    assert order_entry.take_active_sessions() == {5 << 32 | 1}


def test_pong_names_the_credential_of_the_connection() -> None:
    order_entry = OrderEntry(1, 1 << 30, has_keys=True)
    sender = Principal(5, ALL_PERMISSIONS, Scope.ACCOUNT, 3)
    order_entry.receive(b"A", frames.encode(FrameKind.PING), LEADING, None, sender)
    ((_, frame),) = decoded_replies(order_entry)
    assert frames.leader_hint(frame).credential == 5


def test_connection_whose_credential_is_no_longer_valid_is_told_so() -> None:
    order_entry = OrderEntry(1, 1 << 30, has_keys=True)
    for data in (frames.encode(FrameKind.PING), frames.encode_commands(CommandList(rows(1)))):
        order_entry.receive(b"A", data, LEADING, None, None)
        ((_, frame),) = decoded_replies(order_entry)
        assert frames.error_body(frame).code == ErrorCode.FORBIDDEN
        assert "revoked" in frames.error_body(frame).message
    assert order_entry.waiting_commands == 0


def test_refusal_for_a_rate_names_whose_it_is_and_when_the_frame_would_pass() -> None:
    limits = Limits(session_commands_per_second=5000, account_commands_per_second=4096)
    order_entry, _ = entry(limits)
    for commands, expected in (
        (rows(4096), None),
        (rows(1, session=8), frames.ErrorBody(int(ErrorCode.LIMITED), "", account=3, wait_ms=1)),
        (rows(1000, account=4), frames.ErrorBody(int(ErrorCode.LIMITED), "", session=7, wait_ms=20)),
    ):
        order_entry.receive(b"A", frames.encode_commands(CommandList(commands), 9), LEADING, None, STAFF, SECOND_NS)
        found = [frames.error_body(frame) for _, frame in decoded_replies(order_entry)]
        assert [msgspec.structs.replace(body, message="") for body in found] == ([expected] if expected else [])
