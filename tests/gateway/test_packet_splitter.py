"""The compiled splitter against plain code: any cut of a stream gives the same commands; answers find their clients."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from smrx.gateway.native import packet_splitter
from smrx.gateway.native.client_table import ALLOWANCE, LOGGED_IN, PERSON, SESSION, STATE, UNDER_WAY, ClientTable
from smrx.gateway.native.command_block import Block
from smrx.gateway.native.packet_splitter import FULL, LIMIT, NEEDS_BYTES, PACKET, SHARE, START, STOP
from smrx.wire import soup_packets
from smrx.wire.codes import Side
from smrx.wire.command_list import CommandList, join
from smrx.wire.frames import MAX_COMMANDS
from smrx.wire.records import COMMAND, DETAILS, OUTCOME
from smrx.wire.soup_packets import PacketType
from tests.commands import cancel, command, place, session_of

GATEWAY, ANN = 30, 17


class Splitter:
    """A table of clients and a block."""

    def __init__(self, clients: int = 1, *, allowance: int = MAX_COMMANDS, upper: int = 0) -> None:
        self.table = ClientTable(clients, allowance, None)
        self.slots = [self.table.take(0.0) for _ in range(clients)]
        self.block = Block()
        self.allowed: NDArray[np.uint8] = np.ones(256, np.uint8)
        self.upper = upper
        for number, slot in enumerate(self.slots):
            self.table.rows[slot, STATE], self.table.rows[slot, SESSION] = LOGGED_IN, 100 + number

    def split(self, *parts: bytes, share: int = MAX_COMMANDS) -> list[tuple[int, int]]:
        """Split what each client sent; return (bytes taken, why it stopped) of each."""
        arena = np.frombuffer(b"".join(parts) + b"\0", np.uint8).copy()
        spans, at = [], 0
        for slot, part in zip(self.slots, parts, strict=False):
            spans.append((slot, at, at + len(part), 0))
            at += len(part)
        rows = np.array(spans, np.int64)
        block = self.block
        packet_splitter.split(
            arena, rows, share, self.table.rows, self.allowed, np.uint64(self.upper), block.commands, block.words,
            block.details, block.detail_words, block.routes, block.counts,
        )  # fmt: skip
        return [(int(row[START]) - before[1], int(row[STOP])) for row, before in zip(rows, spans, strict=True)]

    def commands(self) -> CommandList:
        count, details = self.block.counts.tolist()
        records = np.frombuffer(self.block.words[:count].tobytes(), COMMAND)
        return CommandList(records, np.frombuffer(self.block.details[:details].tobytes(), DETAILS))

    def routes(self) -> list[int]:
        found: list[int] = self.block.routes[: self.block.counts[0]].tolist()
        return found


def packets(*commands: CommandList) -> bytes:
    return b"".join(soup_packets.encode_commands(*one) for one in commands)


def orders(count: int, session: int = 100, first: int = 1) -> list[CommandList]:
    """Return orders, each third with details."""
    return [
        place(
            (session, first + at), 7, Side.BUY, 1 + at, 50,
            client_order_id="a long client order id" if at % 3 == 2 else "short",
        )
        for at in range(count)
    ]  # fmt: skip


@given(st.lists(st.integers(1, 400), max_size=20))
def test_any_cut_of_a_stream_gives_the_same_commands(cuts: list[int]) -> None:
    sent = orders(12)
    heartbeat = soup_packets.encode(PacketType.CLIENT_HEARTBEAT)
    stream = heartbeat + packets(*sent[:5]) + heartbeat + packets(*sent[5:])
    splitter = Splitter()
    held, at = b"", 0
    for size in (*cuts, len(stream)):
        held += stream[at : at + size]
        at += size
        taken, stop = splitter.split(held)[0]
        assert stop == NEEDS_BYTES
        held = held[taken:]
    assert held == b""
    expected = join(sent)
    assert splitter.commands().pieces() == expected.pieces()


def test_each_client_gets_its_share_and_the_rest_stays() -> None:
    splitter = Splitter(2)
    first, second = packets(*orders(10, 100)), packets(*orders(3, 101))
    (taken, stop), (all_of_second, other) = splitter.split(first, second, share=4)
    assert (stop, other) == (SHARE, NEEDS_BYTES)
    assert (taken, all_of_second) == (len(packets(*orders(4))), len(second))
    assert splitter.routes() == [splitter.slots[0]] * 4 + [splitter.slots[1]] * 3


def test_a_client_has_no_more_under_way_than_it_may() -> None:
    splitter = Splitter(allowance=2)
    data = packets(*orders(3))
    taken, stop = splitter.split(data)[0]
    assert (stop, len(splitter.commands().records)) == (LIMIT, 2)
    splitter.table.rows[splitter.slots[0], UNDER_WAY] = 0
    assert splitter.split(data[taken:])[0] == (len(data) - taken, NEEDS_BYTES)


def test_a_full_block_takes_no_more() -> None:
    splitter = Splitter()
    splitter.table.rows[splitter.slots[0], ALLOWANCE] = 2 * MAX_COMMANDS
    records = np.zeros(MAX_COMMANDS + 1, COMMAND)
    records["kind"], records["session_id"] = 1, 100
    taken, stop = splitter.split(soup_packets.encode_commands(records))[0]
    assert (taken, stop) == (67 * MAX_COMMANDS, FULL)


@pytest.mark.parametrize(
    "data",
    [
        soup_packets.encode(PacketType.LOGOUT_REQUEST),
        soup_packets.encode(PacketType.UNSEQUENCED, bytes(40)),
        b"\0\0U",
        b"\xff\xffU",
        packets(*orders(1, session=102)),
        packets(command(18, (100, 1))),
        soup_packets.encode(PacketType.UNSEQUENCED, orders(1)[0].records.tobytes() + bytes(128)),
    ],
)
def test_python_looks_at_everything_else(data: bytes) -> None:
    splitter = Splitter()
    splitter.allowed[18] = 0
    before = packets(*orders(1))
    assert splitter.split(before + data)[0] == (len(before), PACKET)
    assert len(splitter.commands().records) == 1


def test_on_a_cluster_with_keys_orders_name_the_person_and_sessions_are_the_gateways() -> None:
    splitter = Splitter(upper=GATEWAY)
    session = session_of(ANN, 5)
    row = splitter.table.rows[splitter.slots[0]]
    row[SESSION], row[PERSON] = session, ANN
    sent = [
        place((session, 1), 7, Side.BUY, 1, 50),
        place((session, 2), 7, Side.BUY, 1, 50, client_order_id="more than eight"),
        cancel((session, 3), 7, 1, credential=ANN),
    ]
    assert splitter.split(packets(*sent))[0][1] == NEEDS_BYTES
    records, details = splitter.commands()
    assert records["session_id"].tolist() == [session_of(GATEWAY, 5)] * 3
    assert records["details"].tolist() == [1, 2, 3]
    assert details["credential"].tolist() == [ANN] * 3
    assert details["client_order_id"].tolist() == [b"", b"more than eight", b""]
    other = place((session, 4), 7, Side.BUY, 1, 50, credential=ANN + 1)
    assert splitter.split(packets(other))[0] == (0, PACKET)


@given(st.lists(st.integers(0, 4), min_size=1, max_size=200), st.booleans())
def test_answers_go_to_their_clients_in_order(whose: list[int], has_persons: bool) -> None:
    splitter = Splitter(5)
    outcomes = np.zeros(len(whose), OUTCOME)
    outcomes["request_id"] = np.arange(len(whose))
    outcomes["session_id"] = session_of(GATEWAY, 9)
    splitter.table.rows[:, UNDER_WAY] = 300
    splitter.table.rows[:, PERSON] = 40 + np.arange(5)
    routes = np.array([splitter.slots[number] for number in whose], np.int64)
    out: NDArray[np.uint8] = np.zeros((len(whose), 67), np.uint8)
    touched: NDArray[np.int64] = np.zeros((len(whose), 3), np.int64)
    raw: Any = outcomes.view(np.uint8).reshape(-1, 64)
    count = packet_splitter.join(raw, routes, splitter.table.rows, has_persons, out, touched)
    assert count == len(set(whose))
    for slot, first, last in touched[:count].tolist():
        mine = np.flatnonzero(routes == slot)
        expected = outcomes[mine]
        if has_persons:
            expected["session_id"] = session_of(int(splitter.table.rows[slot, PERSON]), 9)
        assert out[first:last].tobytes() == soup_packets.encode_outcomes(expected)
        assert splitter.table.rows[slot, UNDER_WAY] == 300 - len(mine)


def test_a_slot_is_not_used_again_while_answers_to_it_are_under_way() -> None:
    table = ClientTable(1, 10, None)
    slot = table.take(0.0)
    assert slot is not None
    table.rows[slot, UNDER_WAY] = 1
    table.close(slot)
    assert table.take(0.0) is None
    table.rows[slot, UNDER_WAY] = 0
    table.release(slot)
    assert table.take(0.0) == slot


def test_a_client_with_a_rate_gets_its_tokens_back() -> None:
    table = ClientTable(1, 10, 5000)
    slot = table.take(0.0)
    splitter = Splitter()
    splitter.table, splitter.slots = table, [slot]
    table.rows[slot, STATE], table.rows[slot, SESSION], table.rows[slot, ALLOWANCE] = LOGGED_IN, 100, 1 << 20
    table.refill(1.0)
    table.rows[slot, packet_splitter.TOKENS] = 2
    assert splitter.split(packets(*orders(3)))[0][1] == LIMIT
    table.refill(1.5)
    assert int(table.rows[slot, packet_splitter.TOKENS]) == 2500
