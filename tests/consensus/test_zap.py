"""The ZAP handler: what it answers to libzmq, and how much of it in one turn."""

import time
from collections.abc import Iterator

import pytest
import zmq

from smrx.consensus.zap import ADDRESS, HANDSHAKES_PER_TURN, ZapHandler
from smrx.key_files import generate

KEY = generate()
RAW_KEY = zmq.utils.z85.decode(KEY.public)


@pytest.fixture
def context() -> Iterator["zmq.Context[zmq.Socket[bytes]]"]:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    yield context
    context.destroy(linger=0)


def request(domain: bytes = b"door", mechanism: bytes = b"CURVE", key: bytes = RAW_KEY) -> list[bytes]:
    return [b"1.0", b"17", domain, b"192.0.2.7", b"", mechanism, key]


def handler(context: "zmq.Context[zmq.Socket[bytes]]", asked: list[tuple[str, str]]) -> ZapHandler:
    zap = ZapHandler(context)

    def decide(key: str, address: str) -> str | None:
        asked.append((key, address))
        return "user" if key == KEY.public else None

    zap.serve(context.socket(zmq.ROUTER), "door", generate(), decide)
    return zap


def answer(context: "zmq.Context[zmq.Socket[bytes]]", zap: ZapHandler, parts: list[bytes]) -> list[bytes]:
    with context.socket(zmq.REQ) as asking:
        asking.connect(ADDRESS)
        asking.send_multipart(parts)
        deadline = time.monotonic() + 20
        while not asking.poll(0):
            assert time.monotonic() < deadline, "no answer"
            zap.answer()
        return asking.recv_multipart()


def test_known_key_gets_its_user_id_and_the_decision_sees_the_address(
    context: "zmq.Context[zmq.Socket[bytes]]",
) -> None:
    asked: list[tuple[str, str]] = []
    zap = handler(context, asked)
    assert answer(context, zap, request()) == [b"1.0", b"17", b"200", b"OK", b"user", b""]
    assert asked == [(KEY.public, "192.0.2.7")]
    assert zap.refused == 0


@pytest.mark.parametrize(
    "parts",
    [
        request(key=bytes(range(32))),
        request(domain=b"another"),
        request(mechanism=b"NULL"),
        request()[:-1],
        [*request(), b"more"],
        [b"2.0", *request()[1:]],
        [b""],
    ],
)
def test_anything_else_is_refused(context: "zmq.Context[zmq.Socket[bytes]]", parts: list[bytes]) -> None:
    zap = handler(context, [])
    version, _, status, text, user, _ = answer(context, zap, parts)
    assert (version, status, text, user) == (b"1.0", b"400", b"the key may not connect", b"")
    assert zap.refused == 1


def test_a_turn_answers_a_bounded_number_of_handshakes(context: "zmq.Context[zmq.Socket[bytes]]") -> None:
    asked: list[tuple[str, str]] = []
    zap = handler(context, asked)
    asking = [context.socket(zmq.REQ) for _ in range(3 * HANDSHAKES_PER_TURN)]
    for socket in asking:
        socket.connect(ADDRESS)
        socket.send_multipart(request())
    deadline = time.monotonic() + 20
    turns = 0
    while not all(socket.poll(0) for socket in asking):
        assert time.monotonic() < deadline, "no answer"
        before = len(asked)
        zap.answer()
        turns += len(asked) > before
        assert len(asked) - before <= HANDSHAKES_PER_TURN
    assert turns >= 3
    assert not zap.answer(), "nothing is waiting"
