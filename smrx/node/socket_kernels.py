"""Receive and send many messages of a ROUTER socket in compiled code, without a Python object for each.

`receive_messages` reads what has arrived into one buffer, each message at a multiple of ALIGNMENT, and finds out which
connections sent it. `send_messages` sends frames to connections as far as they take them. Both call libzmq by the
addresses of its functions (libzmq.py) and never block. Called through compiled_entry.py, by order_socket.py.
"""

from typing import Any, Final

from smrx.engine.kernels.jit import Array, inlined, kernel
from smrx.node.c_calls import call_0, call_1, call_2, call_3, call_4
from smrx.node.frame_block import ALIGNMENT, SENDER, SIZE, START

# Numbers of a socket: its address; the address of a zmq_msg_t; whether connections have user ids; the addresses of the
# names of the properties; the addresses of the functions.
SOCKET: Final = 0
MESSAGE: Final = 1
HAS_KEYS: Final = 2
USER_ID: Final = 3
PEER_ADDRESS: Final = 4
MSG_RECV: Final = 5
MSG_DATA: Final = 6
MSG_SIZE: Final = 7
MSG_MORE: Final = 8
MSG_GETS: Final = 9
ERRNO: Final = 10
SEND: Final = 11
COPY: Final = 12
STRLEN: Final = 13
# Set by the kernels: the senders found; the error number that ended the call, 0 if none did.
SENDERS: Final = 14
ERROR: Final = 15
#: The error numbers of a connection that takes nothing now, and of one that is gone.
AGAIN: Final = 16
UNREACHABLE: Final = 17
#: Set by receive_messages: the bytes of the data.
USED: Final = 18
SOCKET_NUMBERS: Final = 19

#: The function of each number.
FUNCTIONS: Final = {
    MSG_RECV: "zmq_msg_recv", MSG_DATA: "zmq_msg_data", MSG_SIZE: "zmq_msg_size", MSG_MORE: "zmq_msg_more",
    MSG_GETS: "zmq_msg_gets", ERRNO: "zmq_errno", SEND: "zmq_send", COPY: "memmove", STRLEN: "strlen",
}  # fmt: skip

# Columns of the senders: where in the names the identity begins, the user id behind it, the address, and where that
# ends.
IDENTITY: Final = 0
USER: Final = 1
ADDRESS: Final = 2
END: Final = 3
SENDER_WORDS: Final = 4

#: Bytes of the longest identity, user id and address.
MAX_NAME: Final = 512
_DONT_WAIT: Final = 1
_SEND_MORE: Final = 2
_MINUS_ONE: Final = 0xFFFF_FFFF
_HASH_FACTOR: Final = 0x100000001B3

# The state of the frames of a sender.
SENT: Final = 0
BLOCKED: Final = 1
GONE: Final = 2


@inlined
def _failed(result: int) -> Any:
    """Whether a C function has returned the int -1."""
    return result & _MINUS_ONE == _MINUS_ONE


@inlined
def _is_same(names: Array, start: int, other: int, size: int) -> Any:
    different = 0
    for at in range(size):
        different |= names[start + at] ^ names[other + at]
    return different == 0


@kernel
def _append_property(numbers: Array, name: int, names: Array, at: int) -> Any:
    """Append a property of the message in hand to the names; return where it ends."""
    text = call_2(numbers[MSG_GETS], numbers[MESSAGE], name)
    if text == 0:
        return at
    size = call_1(numbers[STRLEN], text)
    if at + size > len(names):
        return at
    call_3(numbers[COPY], names.ctypes.data + at, text, size)
    return at + size


@kernel
def _sender_of(names: Array, senders: Array, found: int, cells: Array) -> Any:
    """Return the place of the sender whose names are at `found`, the first unused place; it may be new."""
    start = senders[found, IDENTITY]
    size = senders[found, END] - start
    mixed = 0
    for at in range(start, senders[found, END]):
        mixed = (mixed ^ names[at]) * _HASH_FACTOR
    mask = len(cells) - 1
    cell = (mixed ^ (mixed >> 32)) & mask
    while cells[cell] != 0:
        other = cells[cell] - 1
        begin = senders[other, IDENTITY]
        if (
            senders[other, END] - begin == size
            and senders[other, USER] - begin == senders[found, USER] - start
            and senders[other, ADDRESS] - begin == senders[found, ADDRESS] - start
            and _is_same(names, start, begin, size)
        ):
            return other
        cell = (cell + 1) & mask
    cells[cell] = found + 1
    return found


@kernel
def receive_messages(
    numbers: Array, data: Array, max_bytes: int, rows: Array, names: Array, senders: Array, cells: Array
) -> Any:
    """Receive until nothing is left or no space is; return the number of messages.

    A message that is not one part behind the identity has 0 bytes. `cells` has a power of two of zeros, more than twice
    as many as there can be senders.
    """
    count = 0
    used = 0
    found = 0
    named = 0
    numbers[ERROR] = 0
    message = numbers[MESSAGE]
    cells[:] = 0
    while (
        count < len(rows) and used + max_bytes <= len(data) and found < len(senders) and named + MAX_NAME <= len(names)
    ):
        if _failed(call_3(numbers[MSG_RECV], message, numbers[SOCKET], _DONT_WAIT)):
            numbers[ERROR] = call_0(numbers[ERRNO]) & _MINUS_ONE
            break
        size = call_1(numbers[MSG_SIZE], message)
        call_3(numbers[COPY], names.ctypes.data + named, call_1(numbers[MSG_DATA], message), size)
        end = named + size
        senders[found, IDENTITY] = named
        senders[found, USER] = end
        senders[found, ADDRESS] = end
        parts = 0
        size = 0
        while call_1(numbers[MSG_MORE], message) & _MINUS_ONE != 0:
            if _failed(call_3(numbers[MSG_RECV], message, numbers[SOCKET], _DONT_WAIT)):
                break
            parts += 1
            if parts > 1:
                continue
            size = call_1(numbers[MSG_SIZE], message)
            if size <= max_bytes:
                call_3(numbers[COPY], data.ctypes.data + used, call_1(numbers[MSG_DATA], message), size)
            if numbers[HAS_KEYS] != 0:
                end = _append_property(numbers, numbers[USER_ID], names, end)
                senders[found, ADDRESS] = end
                end = _append_property(numbers, numbers[PEER_ADDRESS], names, end)
        senders[found, END] = end
        if parts != 1 or size > max_bytes:
            size = 0
        sender = _sender_of(names, senders, found, cells)
        if sender == found:
            found += 1
            named = end
        rows[count, START] = used
        rows[count, SIZE] = size
        rows[count, SENDER] = sender
        used += (size + ALIGNMENT - 1) // ALIGNMENT * ALIGNMENT
        count += 1
    numbers[SENDERS] = found
    numbers[USED] = used
    return count


@kernel
def send_messages(numbers: Array, data: Array, rows: Array, names: Array, ends: Array, states: Array) -> None:
    """Send frames, those of a sender as long as its connection takes them.

    names: the identities, one behind the other; ends: where each ends. states: of each sender, SENT before, and their
    state after; BLOCKED before sends it nothing. The frames that were sent get the size 0.
    """
    numbers[ERROR] = 0
    for row in range(len(rows)):
        sender = rows[row, SENDER]
        if states[sender] != SENT:
            continue
        start = ends[sender - 1] if sender > 0 else 0
        name = names.ctypes.data + start
        if _failed(call_4(numbers[SEND], numbers[SOCKET], name, ends[sender] - start, _DONT_WAIT | _SEND_MORE)):
            error = call_0(numbers[ERRNO]) & _MINUS_ONE
            if error == numbers[AGAIN]:
                states[sender] = BLOCKED
            elif error == numbers[UNREACHABLE]:
                states[sender] = GONE
            else:
                numbers[ERROR] = error
                return
            continue
        call_4(numbers[SEND], numbers[SOCKET], data.ctypes.data + rows[row, START], rows[row, SIZE], _DONT_WAIT)
        rows[row, SIZE] = 0
