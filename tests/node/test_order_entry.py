"""Order entry: which replies leave, to which client, and when."""

import numpy as np
import pytest

from smrx.config import Limits
from smrx.node.client_limits import ClientLimits
from smrx.node.frame_block import AnswerBlock, block_of, key_of
from smrx.node.order_entry import OrderEntry, Reply, each_route
from smrx.node.principal import EVERYTHING, Principal
from smrx.node.replicated_state import Applied
from smrx.wire import frames
from smrx.wire.codes import ALL_PERMISSIONS, CommandKind, EventKind, OutcomeStatus, Scope
from smrx.wire.command_list import CommandList
from smrx.wire.frames import ErrorCode, FrameKind, LeaderHint
from smrx.wire.records import COMMAND, DETAILS, EVENT, OUTCOME

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
    return [(identity, frames.decode(frame)) for identity, frame in sent_frames(order_entry.take_replies())]


def sent_frames(replies: list[Reply | AnswerBlock]) -> list[tuple[bytes, bytes]]:
    found: list[tuple[bytes, bytes]] = []
    for reply in replies:
        found += [(reply.identity, reply.frame)] if isinstance(reply, Reply) else reply.frames()
    return found


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


# Frames in blocks.

Received = tuple[bytes, bytes, Principal | None]


def random_frame(rng: np.random.Generator, credential: int) -> bytes:
    """Return a frame, mostly of commands that are accepted."""
    kind = rng.integers(14)
    if kind == 0:
        return frames.encode(FrameKind.PING, aux=int(rng.integers(3)) << 32 | 7)
    if kind == 1:
        return rng.bytes(int(rng.integers(200)))
    rows = commands(int(rng.choice([1, 1, 1, 2, 40, 900])))
    rows["session_id"] = credential << 32 | rng.integers(1, 4, len(rows), np.uint64)
    rows["account"] = rng.integers(1, 4, len(rows))
    details = np.zeros(0, DETAILS)
    if kind == 2:
        rows["kind"][-1] = rng.choice([CommandKind.TICK, CommandKind.OPEN_SESSION, 63, 64, 200])
    elif kind == 3:
        details = np.zeros(2, DETAILS)
        rows["details"][0] = rng.integers(4)
    elif kind == 4:
        rows["session_id"][-1] = 99
    data = bytearray(frames.encode_commands(CommandList(rows, details), int(rng.integers(1 << 63)) * 2 + 1))
    if kind == 5:
        data[int(rng.integers(32))] ^= 1 << int(rng.integers(8))
    return bytes(data)


def take_all(order_entry: OrderEntry, index: int) -> tuple[list[bytes], list[tuple[bytes, int, int]]]:
    """Submit and apply what was accepted; return the entries, and identity, correlation and size of each route."""
    entries, routes = [], []
    for number, batch in enumerate(order_entry.take_batches()):
        body = b"".join(batch.bodies)
        entries.append(body + batch.details)
        routes += [(route.identity, route.correlation, route.commands) for route in each_route(batch.routes)]
        order_entry.submitted(index + number, 5, batch.routes)
        rows = np.frombuffer(body, COMMAND)
        order_entry.applied(applied(index + number, 5, outcomes_of(rows, index)))
    return entries, routes


@pytest.mark.parametrize("seed", range(12))
def test_frames_in_a_block_are_treated_as_one_by_one(seed: int) -> None:
    """With keys and limits, and also what is refused: the entries, routes, replies and counts are equal."""
    rng = np.random.default_rng(seed)
    has_keys = bool(seed % 2)
    limits = Limits(
        session_commands_per_second=5000, account_commands_per_second=6000, connection_commands=4096,
        connection_bytes=1 << 20,
    )  # fmt: skip
    sides = []
    for _ in range(2):
        client_limits = ClientLimits(limits)
        sides.append((OrderEntry(1, 6000, limits=client_limits, has_keys=has_keys), client_limits))
    (single, single_limits), (many, many_limits) = sides
    firm = Principal(2, ALL_PERMISSIONS, Scope.FIRM, 1, {1: 1, 2: 2, 3: 1}.__getitem__)
    people = (Principal(1, ALL_PERMISSIONS, Scope.ACCOUNT, 3), firm, EVERYTHING, None)
    identities = (b"\0aaaa", b"\0bbbb", b"own name", b"\0cccc")
    now_ns = 0
    for turn in range(20):
        now_ns += int(rng.integers(300_000_000))
        received: list[Received] = []
        for _ in range(rng.integers(12)):
            place = int(rng.integers(4))
            principal = people[place] if has_keys else EVERYTHING
            credential = principal.credential if principal is not None else 0
            received.append((identities[place], random_frame(rng, credential), principal))
        hint = FOLLOWING if turn == 15 else LEADING
        fenced = "fenced" if turn == 16 else None
        for identity, data, principal in received:
            single.receive(identity, data, hint, fenced, principal, now_ns)
        if received:
            many.receive_block(block_of(received), hint, fenced, now_ns)
        assert sent_frames(many.take_replies()) == sent_frames(single.take_replies())
        assert many.take_active_sessions() == single.take_active_sessions()
        assert many.waiting_commands == single.waiting_commands
        if turn == 10:
            single.lost_leadership(FOLLOWING)
            many.lost_leadership(FOLLOWING)
        elif turn % 3:
            assert take_all(many, 10 * turn) == take_all(single, 10 * turn)
        # Answers to different clients may leave in another order.
        assert sorted(sent_frames(many.take_replies())) == sorted(sent_frames(single.take_replies()))
        for identity in identities:
            assert many_limits.use.commands(identity) == single_limits.use.commands(identity)
            assert many_limits.use.bytes_of(identity) == single_limits.use.bytes_of(identity)
        for credential in (1, 2):
            assert (many._waiting_of.row(credential) == single._waiting_of.row(credential)).all()


def test_answers_to_a_client_are_together_and_in_order() -> None:
    order_entry = OrderEntry(1, 1000)
    sent = [(b"A", 1), (b"B", 2), (b"A", 3), (b"C", 4), (b"B", 5), (b"A", 6)]
    received: list[Received] = [
        (identity, frames.encode_commands(plain(2, 10 * number), number), EVERYTHING) for identity, number in sent
    ]
    order_entry.receive_block(block_of(received), LEADING, None)
    batch = submit_all(order_entry, 8, 5)
    order_entry.applied(applied(8, 5, outcomes_of(batch, 100)))
    answers = decoded_replies(order_entry)
    assert [(identity, frame.correlation) for identity, frame in answers] == [
        (b"A", 1), (b"A", 3), (b"A", 6), (b"B", 2), (b"B", 5), (b"C", 4),
    ]  # fmt: skip
    assert all(frames.records(frame)["request_id"][0] == 10 * frame.correlation for _, frame in answers)


def test_block_with_more_commands_than_an_entry_is_split_in_order() -> None:
    order_entry = OrderEntry(1, 1 << 20)
    received: list[Received] = [
        (b"A", frames.encode_commands(plain(count, 1 + 4096 * number), number), EVERYTHING)
        for number, count in enumerate([4096] * 10)
    ]
    order_entry.receive_block(block_of(received), LEADING, None)
    entries = [np.frombuffer(b"".join(bodies), COMMAND) for bodies, _, _ in order_entry.take_batches()]
    assert len(entries) > 1
    assert all(entry.nbytes < 1 << 20 for entry in entries)
    assert np.concatenate(entries)["request_id"].tolist() == list(range(1, 40961))


def test_table_of_many_sessions_grows_and_begins_anew() -> None:
    limits = ClientLimits(Limits())
    order_entry = OrderEntry(1, 1 << 30, limits=limits)
    for turn in range(40):
        rows = commands(4096)
        rows["session_id"] = np.arange(4096 * turn, 4096 * (turn + 1))
        order_entry.receive_block(
            block_of([(b"A", frames.encode_commands(CommandList(rows)), EVERYTHING)]), LEADING, None
        )
        take_all(order_entry, turn + 1)
        order_entry.take_replies()
    assert len(limits._sessions.table.cells) <= 1 << 17


def test_connections_have_keys_of_their_own() -> None:
    assert len({key_of(name) for name in (b"\0\0\0\0\1", b"\0\0\0\1\0", b"\1", b"", b"A", b"\0aaaaa")}) == 6
