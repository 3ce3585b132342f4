"""The packets of the native protocol: the bytes that docs/gateway.md shows, and what is not a packet."""

import contextlib
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from smrx.wire import soup_packets
from smrx.wire.codes import EventKind, OutcomeStatus, SessionFlags, Side
from smrx.wire.command_list import CommandList, join
from smrx.wire.records import OUTCOME
from smrx.wire.soup_packets import (
    Login,
    Notice,
    NoticeCode,
    PacketError,
    PacketReader,
    PacketType,
    RejectReason,
    encode,
    encode_commands,
)
from tests.commands import open_session, place

PAGE = Path(__file__).resolve().parent.parent.parent / "docs/gateway.md"


def outcome() -> np.ndarray:
    record = np.zeros(1, OUTCOME)
    record["status"], record["event_kind"], record["event_count"] = OutcomeStatus.ACCEPTED, EventKind.NEW, 1
    record["session_id"], record["request_id"], record["sequence"], record["order_id"] = 101, 1, 57, 57
    record["first_event"], record["leaves_lots"] = 90, 5
    return record


EXAMPLES = {
    'login request of "desk"': soup_packets.encode_login(Login("desk")),
    "login accepted": soup_packets.encode_accepted("0", 1),
    "login rejected": soup_packets.encode_rejected(RejectReason.NO_SESSION),
    "OPEN_SESSION 101": encode_commands(*open_session(101, 7, SessionFlags.CANCEL_ON_DISCONNECT, 1024)),
    "PLACE": encode_commands(*place((101, 1), 7, Side.BUY, 5, 100)),
    "PLACE with details": encode_commands(*place((101, 2), 7, Side.BUY, 5, 100, client_order_id="desk-3/000017")),
    "outcome": soup_packets.encode_outcomes(outcome()),
    "notice": soup_packets.encode_notice(Notice(NoticeCode.WRONG_SESSION, 102, 1, "no")),
    "client heartbeat": encode(PacketType.CLIENT_HEARTBEAT),
    "server heartbeat": encode(PacketType.SERVER_HEARTBEAT),
    "logout request": encode(PacketType.LOGOUT_REQUEST),
    "end of session": encode(PacketType.END_OF_SESSION),
    "debug": encode(PacketType.DEBUG, b"no login request within 5 s"),
}


def test_the_page_shows_the_bytes_of_the_code() -> None:
    rows = re.findall(r"^\| (.+?) \| ([0-9a-f]{6,}) \|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert {name: bytes.fromhex(data) for name, data in rows} == EXAMPLES


def test_what_is_encoded_is_decoded() -> None:
    packets = list(PacketReader().feed(b"".join(EXAMPLES.values())))
    assert len(packets) == len(EXAMPLES)
    by_name = dict(zip(EXAMPLES, (packet.payload for packet in packets), strict=True))
    assert soup_packets.decode_login(by_name['login request of "desk"']) == Login("desk")
    assert soup_packets.decode_accepted(by_name["login accepted"]) == ("0", 1)
    assert soup_packets.decode_notice(by_name["notice"]) == Notice(NoticeCode.WRONG_SESSION, 102, 1, "no")
    assert soup_packets.outcomes_of(packets).tobytes() == outcome().tobytes()
    sent = place((101, 2), 7, Side.BUY, 5, 100, client_order_id="desk-3/000017")
    assert CommandList(*soup_packets.decode_command(by_name["PLACE with details"])).pieces() == sent.pieces()


def test_commands_of_a_list_have_their_own_details() -> None:
    sent = join([place((1, at), 7, Side.BUY, 5, 100, client_order_id=f"a long id {at}" * (at % 2)) for at in (1, 2, 3)])
    packets = PacketReader().feed(encode_commands(*sent))
    pieces = [CommandList(*soup_packets.decode_command(packet.payload)).pieces()[0] for packet in packets]
    assert pieces == sent.pieces()


@given(st.binary(max_size=300), st.lists(st.integers(1, 40), max_size=20))
def test_any_bytes_are_packets_or_a_packet_error(data: bytes, cuts: list[int]) -> None:
    reader, at = PacketReader(), 0
    decoders = (
        soup_packets.decode_login,
        soup_packets.decode_accepted,
        soup_packets.decode_notice,
        soup_packets.decode_command,
    )
    with contextlib.suppress(PacketError):
        for size in (*cuts, len(data)):
            for packet in reader.feed(data[at : at + size]):
                for decode in decoders:
                    with contextlib.suppress(PacketError):
                        decode(packet.payload)
            at += size


def test_what_does_not_fit_is_a_fault_of_the_caller() -> None:
    with pytest.raises(ValueError, match="at most 6 characters"):
        soup_packets.encode_login(Login("a long name"))
    with pytest.raises(ValueError, match="at most 65534 bytes"):
        encode(PacketType.DEBUG, bytes(1 << 16))
