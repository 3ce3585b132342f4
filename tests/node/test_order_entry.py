"""Order entry: which replies leave, to which client, and when."""

import numpy as np
import pytest

from smrx.node.order_entry import OrderEntry
from smrx.node.replicated_state import Applied
from smrx.wire import frames
from smrx.wire.codes import CommandKind, EventKind, OutcomeStatus
from smrx.wire.command_list import CommandList
from smrx.wire.frames import ErrorCode, FrameKind, LeaderHint
from smrx.wire.records import COMMAND, EVENT, OUTCOME

LEADING = LeaderHint(1, "tcp://127.0.0.1:1", 1, 5)
FOLLOWING = LeaderHint(2, "tcp://127.0.0.1:2", 1, 5)


def commands(count: int, first_request: int = 1) -> np.ndarray:
    rows = np.zeros(count, COMMAND)
    rows["kind"] = CommandKind.CANCEL
    rows["session_id"] = 7
    rows["request_id"] = np.arange(first_request, first_request + count)
    return rows


def plain(count: int, first_request: int = 1) -> CommandList:
    return CommandList(commands(count, first_request))


def outcomes_of(rows: np.ndarray, first_sequence: int) -> np.ndarray:
    outcomes = np.zeros(len(rows), OUTCOME)
    outcomes["status"] = OutcomeStatus.ACCEPTED
    outcomes["event_kind"] = EventKind.NEW
    outcomes["session_id"] = rows["session_id"]
    outcomes["request_id"] = rows["request_id"]
    outcomes["sequence"] = np.arange(first_sequence, first_sequence + len(rows))
    return outcomes


def applied(index: int, term: int, outcomes: np.ndarray) -> Applied:
    return Applied(index, term, outcomes, np.zeros(0, EVENT), 0, 0)


def decoded_replies(order_entry: OrderEntry) -> list[tuple[bytes, frames.Frame]]:
    return [(reply.identity, frames.decode(reply.frame)) for reply in order_entry.take_replies()]


def submit_all(order_entry: OrderEntry, index: int, term: int) -> np.ndarray:
    ((bodies, _, routes),) = order_entry.take_batches()
    order_entry.submitted(index, term, routes)
    return np.frombuffer(b"".join(bodies), COMMAND)


def test_one_turn_is_one_entry_and_each_client_gets_its_outcomes() -> None:
    order_entry = OrderEntry(1, 1000)
    order_entry.receive(b"A", frames.encode_commands(plain(2), 11), LEADING, None)
    order_entry.receive(b"B", frames.encode_commands(plain(3, 10), 22), LEADING, None)
    assert order_entry.take_replies() == []
    batch = submit_all(order_entry, 8, 5)
    assert batch["request_id"].tolist() == [1, 2, 10, 11, 12]
    order_entry.applied(applied(8, 5, outcomes_of(batch, 100)))
    (a, to_a), (b, to_b) = decoded_replies(order_entry)
    assert (a, to_a.correlation, frames.records(to_a)["sequence"].tolist()) == (b"A", 11, [100, 101])
    assert (b, to_b.correlation, frames.records(to_b)["sequence"].tolist()) == (b"B", 22, [102, 103, 104])
    assert order_entry.waiting_commands == 0


def test_entry_of_another_leader_at_the_same_index_is_not_answered() -> None:
    order_entry = OrderEntry(1, 1000)
    order_entry.receive(b"A", frames.encode_commands(plain(2), 11), LEADING, None)
    batch = submit_all(order_entry, 8, 5)
    order_entry.applied(applied(8, 6, outcomes_of(batch, 100)))
    assert order_entry.take_replies() == []
    order_entry.lost_leadership(FOLLOWING)
    ((identity, frame),) = decoded_replies(order_entry)
    assert (identity, frame.kind, frame.correlation) == (b"A", FrameKind.NOT_LEADER, 11)
    assert frames.leader_hint(frame) == FOLLOWING


def test_follower_replies_with_the_leaders_address() -> None:
    order_entry = OrderEntry(1, 1000)
    order_entry.receive(b"A", frames.encode_commands(plain(1), 3), FOLLOWING, None)
    ((_, frame),) = decoded_replies(order_entry)
    assert frame.kind is FrameKind.NOT_LEADER
    assert frames.leader_hint(frame).order_address == "tcp://127.0.0.1:2"
    assert list(order_entry.take_batches()) == []


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", ErrorCode.MALFORMED_FRAME),
        (b"GET / HTTP/1.1\r\n\r\n" + b" " * 40, ErrorCode.MALFORMED_FRAME),
        (frames.encode_commands(plain(2))[:-1], ErrorCode.MALFORMED_FRAME),
        (frames.encode(FrameKind.COMMANDS, b"", 0), ErrorCode.MALFORMED_FRAME),
        (frames.encode(FrameKind.COMMANDS, b"", 5000), ErrorCode.TOO_MANY_COMMANDS),
        (frames.encode(FrameKind.EVENTS, b"", 0), ErrorCode.MALFORMED_FRAME),
        (b"SMRX\x09" + bytes(27), ErrorCode.UNSUPPORTED_VERSION),
    ],
)
def test_bad_frame_is_refused_and_not_submitted(data: bytes, code: ErrorCode) -> None:
    order_entry = OrderEntry(1, 1000)
    order_entry.receive(b"A", data, LEADING, None)
    ((_, frame),) = decoded_replies(order_entry)
    assert frame.kind is FrameKind.ERROR
    assert frames.error_body(frame).code == code
    assert list(order_entry.take_batches()) == []


@pytest.mark.parametrize("kind", [CommandKind.TICK, CommandKind.DISCONNECT, CommandKind.SET_VERSION])
@pytest.mark.parametrize("at", [0, 2])
def test_timer_driven_commands_are_refused_from_clients(kind: CommandKind, at: int) -> None:
    order_entry = OrderEntry(1, 1000)
    rows = commands(3)
    rows["kind"][at] = kind
    order_entry.receive(b"A", frames.encode_commands(CommandList(rows), 4), LEADING, None)
    ((_, frame),) = decoded_replies(order_entry)
    assert (frame.kind, frame.correlation) == (FrameKind.ERROR, 4)
    assert frames.error_body(frame).code == ErrorCode.FORBIDDEN
    assert kind.name in frames.error_body(frame).message
    assert list(order_entry.take_batches()) == []
    assert order_entry.waiting_commands == 0
    # A number that contains the byte of the kind elsewhere is not refused.
    rows["kind"], rows["price_ticks"], rows["side"] = CommandKind.PLACE, int(kind), int(kind)
    order_entry.receive(b"A", frames.encode_commands(CommandList(rows), 5), LEADING, None)
    assert len(submit_all(order_entry, 1, 5)) == 3


def test_commands_and_pings_mark_a_session_active() -> None:
    order_entry = OrderEntry(1, 1000)
    order_entry.receive(b"A", frames.encode_commands(plain(2), 1), LEADING, None)
    order_entry.receive(b"B", frames.encode(FrameKind.PING, aux=2**64 - 1), LEADING, None)
    order_entry.receive(b"C", frames.encode(FrameKind.PING), LEADING, None)
    assert order_entry.take_active_sessions() == {7, 2**64 - 1}
    assert order_entry.take_active_sessions() == set()


def test_frames_beyond_the_pending_limit_are_refused_as_overloaded() -> None:
    order_entry = OrderEntry(1, 5)
    order_entry.receive(b"A", frames.encode_commands(plain(4), 1), LEADING, None)
    order_entry.receive(b"A", frames.encode_commands(plain(2, 5), 2), LEADING, None)
    ((_, frame),) = decoded_replies(order_entry)
    assert frames.error_body(frame).code == ErrorCode.OVERLOADED
    assert len(submit_all(order_entry, 3, 5)) == 4


def test_fenced_node_accepts_no_commands() -> None:
    order_entry = OrderEntry(1, 5)
    order_entry.receive(b"A", frames.encode_commands(plain(1), 1), LEADING, "diverged at command 9")
    ((_, frame),) = decoded_replies(order_entry)
    assert frames.error_body(frame) == frames.ErrorBody(ErrorCode.FENCED, "diverged at command 9")


def test_batch_too_large_for_one_entry_is_split_in_order() -> None:
    order_entry = OrderEntry(1, 1 << 20)
    for i in range(10):
        order_entry.receive(b"A", frames.encode_commands(plain(4096, 1 + 4096 * i), i), LEADING, None)
    entries = [np.frombuffer(b"".join(bodies), COMMAND) for bodies, _, _ in order_entry.take_batches()]
    assert len(entries) > 1
    assert all(entry.nbytes < 1 << 20 for entry in entries)
    assert np.concatenate(entries)["request_id"].tolist() == list(range(1, 40961))
