"""Cut what many clients sent into one block of commands, and outcomes into the packets of many clients.

Owns the two compiled functions between sockets and frames: no Python object is made for a command. They handle what a
client in order sends: commands of its open session, and heartbeats. At everything else split() stops, and Python
decides (native_server.py). Used with the tables of client_table.py.
"""

from typing import Any, Final

import numpy as np

from smrx.engine.kernels.jit import entry_point, fingerprint
from smrx.gateway.native import client_table
from smrx.gateway.native.client_table import (
    ACCOUNT,
    ALLOWANCE,
    COUNT,
    LOGGED_IN,
    PERSON,
    POSITION,
    SESSION,
    STATE,
    TOKENS,
    UNDER_WAY,
    ClientTable,
)
from smrx.gateway.native.command_block import Block
from smrx.wire.codes import CommandKind
from smrx.wire.records import COMMAND_SIZE, DETAILS, DETAILS_SIZE
from smrx.wire.soup_packets import HEADER_SIZE, PacketType

#: Columns of a span: the client's slot, where its bytes begin and end in the arena, and why split() stopped there.
SLOT, START, END, STOP = range(4)

#: Why split() stopped: the rest is no whole packet; Python has to look at the next packet; the client has as many
#: commands under way as it may have; the block is full; the client has had its share of the block.
NEEDS_BYTES, PACKET, LIMIT, FULL, SHARE = range(5)

_WHOLE: Final = COMMAND_SIZE + 1
_WITH_DETAILS: Final = COMMAND_SIZE + DETAILS_SIZE + 1
_COMMAND: Final = int(PacketType.UNSEQUENCED)
_OUTCOME: Final = int(PacketType.SEQUENCED)
_HEARTBEAT: Final = int(PacketType.CLIENT_HEARTBEAT)
_HEADER: Final = HEADER_SIZE
_OF_ORDERS: Final = (int(CommandKind.PLACE), int(CommandKind.CANCEL), int(CommandKind.REPLACE))
_MASS_CANCEL: Final = int(CommandKind.MASS_CANCEL)
#: The word of an order's details with the number of the person in its lower half.
_PERSON_WORD: Final = DETAILS.fields["credential"][1] // 8  # type: ignore[index]
_LOW: Final = np.uint64(0xFFFF_FFFF)
_HIGH: Final = np.uint64(0xFFFF_FFFF_0000_0000)
_NUMBER_SHIFT: Final = np.uint64(48)
_WITHOUT_NUMBER: Final = np.uint64((1 << 48) - 1)
_KIND: Final = np.uint64(0xFF)
_ONE: Final = np.uint64(1)
_SHIFT: Final = np.uint64(32)

_SOURCE: Final = fingerprint("smrx.gateway.native.client_table", "smrx.wire.soup_packets", "smrx.wire.codes")
assert client_table.COLUMNS > POSITION


@entry_point
def split(
    arena: Any,
    spans: Any,
    share: int,
    table: Any,
    allowed: Any,
    upper: Any,
    commands: Any,
    words: Any,
    details: Any,
    detail_words: Any,
    routes: Any,
    counts: Any,
) -> int:
    """Append the commands in the spans of the arena to a block; return how many were appended.

    `arena`: u8. `spans`: i64 (n, 4), see SLOT; START becomes the first byte that is left. `share`: at most so many
    commands of one span. `table`: u64, client_table.py. `allowed`: u8 (256), the kinds that pass. `upper`: on a cluster
    with keys the gateway's credential, which becomes the upper half of session ids, else 0. `commands` u8 (n, 64) and
    `words` u64 (n, 8) are one memory, so are `details` u8 (n, 128) and `detail_words` u64 (n, 16). `routes`: i64 (n),
    the slot of each command. `counts`: i64 (2), commands and details in the block.
    """
    at_command, at_details = counts[0], counts[1]
    first = at_command
    most = len(routes)
    for row in range(len(spans)):
        slot, at, end = spans[row, SLOT], spans[row, START], spans[row, END]
        left = share
        stop = NEEDS_BYTES
        while end - at >= _HEADER:
            size = np.int64(arena[at]) << 8 | np.int64(arena[at + 1])
            kind = arena[at + 2]
            if kind == _HEARTBEAT and size == 1:
                at += _HEADER
                continue
            if kind != _COMMAND or (size != _WHOLE and size != _WITH_DETAILS) or table[slot, STATE] != LOGGED_IN:
                stop = PACKET
                break
            if end - at < size + 2:
                break
            if at_command == most or at_details == len(details):
                stop = FULL
                break
            if table[slot, UNDER_WAY] >= table[slot, ALLOWANCE] or table[slot, TOKENS] == 0:
                stop = LIMIT
                break
            if left == 0:
                stop = SHARE
                break
            body = at + _HEADER
            for place in range(COMMAND_SIZE):
                commands[at_command, place] = arena[body + place]
            head = words[at_command, 0]
            has_details = size == _WITH_DETAILS
            command = np.int64(head & _KIND)
            if (
                (head >> _NUMBER_SHIFT) != np.uint64(has_details)
                or allowed[command] == 0
                or words[at_command, 1] != table[slot, SESSION]
            ):
                stop = PACKET
                break
            if has_details:
                for place in range(DETAILS_SIZE):
                    details[at_details, place] = arena[body + COMMAND_SIZE + place]
            if upper != 0:
                # The session is the gateway's, and each order names the person behind it.
                if command == _MASS_CANCEL and (words[at_command, 3] & _LOW) != table[slot, ACCOUNT]:
                    stop = PACKET
                    break
                words[at_command, 1] = (words[at_command, 1] & _LOW) | (upper << _SHIFT)
                if command in _OF_ORDERS:
                    if not has_details:
                        has_details = True
                        for place in range(DETAILS_SIZE):
                            details[at_details, place] = 0
                    person = detail_words[at_details, _PERSON_WORD] & _LOW
                    if person != 0 and person != table[slot, PERSON]:
                        stop = PACKET
                        break
                    rest = detail_words[at_details, _PERSON_WORD] & _HIGH
                    detail_words[at_details, _PERSON_WORD] = rest | table[slot, PERSON]
            if has_details:
                at_details += 1
                words[at_command, 0] = (head & _WITHOUT_NUMBER) | (np.uint64(at_details) << _NUMBER_SHIFT)
            routes[at_command] = slot
            at_command += 1
            left -= 1
            table[slot, UNDER_WAY] += _ONE
            table[slot, TOKENS] -= _ONE
            at += size + 2
        spans[row, START] = at
        spans[row, STOP] = stop
    counts[0], counts[1] = at_command, at_details
    return int(at_command - first) + (_SOURCE & 0)


def warm_up(block: Block, table: ClientTable) -> None:
    """Compile both functions, or load them, before clients wait for them; only the types of the arguments matter."""
    nothing: Any = np.zeros(0, np.uint8)
    split(
        nothing, np.zeros((0, 4), np.int64), 0, table.rows, np.zeros(256, np.uint8), np.uint64(0), block.commands,
        block.words, block.details, block.detail_words, block.routes, np.zeros(2, np.int64),
    )  # fmt: skip
    # Outcomes are read where they were received, so the array is read-only.
    outcomes: Any = np.frombuffer(b"", np.uint8).reshape(0, COMMAND_SIZE)
    packets: Any = np.zeros((0, COMMAND_SIZE + HEADER_SIZE), np.uint8)
    join(outcomes, np.zeros(0, np.int64), table.rows, False, packets, np.zeros((0, 3), np.int64))


@entry_point
def join(outcomes: Any, routes: Any, table: Any, has_persons: bool, packets: Any, touched: Any) -> int:
    """Write outcomes as packets, those of each client together and in order; return the number of clients.

    `outcomes`: u8 (n, 64). `routes`: i64 (n), the slot of each. `packets`: u8 (n, 67). `touched`: i64 (n, 3), for each
    client its slot and the first and past the last of its packets. `has_persons`: the upper half of session ids becomes
    the client's person. The clients have so many fewer commands under way.
    """
    count = 0
    for row in range(len(routes)):
        slot = routes[row]
        if table[slot, COUNT] == 0:
            touched[count, 0] = slot
            count += 1
        table[slot, COUNT] += _ONE
    first = np.int64(0)
    for number in range(count):
        slot = touched[number, 0]
        touched[number, 1] = first
        table[slot, POSITION] = np.uint64(first)
        first += np.int64(table[slot, COUNT])
        touched[number, 2] = first
        table[slot, UNDER_WAY] -= table[slot, COUNT]
        table[slot, COUNT] = np.uint64(0)
    for row in range(len(routes)):
        slot = routes[row]
        to = np.int64(table[slot, POSITION])
        table[slot, POSITION] += _ONE
        packets[to, 0], packets[to, 1], packets[to, 2] = 0, _WHOLE, _OUTCOME
        for place in range(COMMAND_SIZE):
            packets[to, _HEADER + place] = outcomes[row, place]
        if has_persons:
            person = table[slot, PERSON]
            for place in range(4):
                packets[to, _HEADER + 12 + place] = np.uint8((person >> np.uint64(8 * place)) & _KIND)
    return count + (_SOURCE & 0)
