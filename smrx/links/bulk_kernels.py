"""Receive from and send to many plain connections in compiled code: system calls, and no Python object for each.

`receive_ready` reads what has arrived on the connections of one epoll into one arena. `send_all` sends to many
connections, as far as the kernel takes it. Neither blocks, looks into a frame or closes anything: what is not plain,
as the end of a connection, is reported. Called by bulk_links.py, on Linux only.
"""

from typing import Any, Final

import numpy as np
from numba import types

from smrx.engine.kernels.jit import INTERPRETED, Array, entry_point

_types: Any = types
_external: Any = _types.ExternalFunction
_int32, _intp, _uintp = _types.int32, _types.intp, _types.uintp
_receive: Any = _external("recv", _intp(_int32, _uintp, _uintp, _int32))
_transmit: Any = _external("send", _intp(_int32, _uintp, _uintp, _int32))
_copy: Any = _external("memmove", _uintp(_uintp, _uintp, _uintp))
_wait: Any = _external("epoll_wait", _int32(_int32, _uintp, _int32, _int32))

#: MSG_DONTWAIT and MSG_NOSIGNAL of Linux.
_FLAGS: Final = 0x4040
_IN: Final = 0x1
_OUT: Final = 0x4
_BROKEN: Final = 0x8 | 0x10  # EPOLLERR, EPOLLHUP

# Numbers of a receiver: the epoll; the layout of its events; what one connection is read at a time; the bytes that are
# kept of a connection in front of which it is read, more are completed where they are kept.
EPOLL: Final = 0
EVENT_BYTES: Final = 1
EVENT_DATA: Final = 2
READ_BYTES: Final = 3
JOINED_BYTES: Final = 4
# Kept from call to call: the events in the buffer, and the next of them.
EVENTS: Final = 5
NEXT: Final = 6
# Set by receive_ready: the bytes used of the arena, and the events that are not plain.
USED: Final = 7
OTHERS: Final = 8
NUMBERS: Final = 9

# Columns of the table, one row a descriptor: a number that no other connection has, 0 for none; the bytes kept of an
# incomplete frame, their address, and the room there; the bytes after which the frame is complete; whether bytes wait
# to be sent.
SERIAL: Final = 0
HELD: Final = 1
ADDRESS: Final = 2
ROOM: Final = 3
WANTED: Final = 4
BLOCKED: Final = 5
COLUMNS: Final = 6

# Columns of a span of the arena: the connection, its bytes, and its serial number.
DESCRIPTOR: Final = 0
START: Final = 1
END: Final = 2
NUMBER: Final = 3
SPAN_WORDS: Final = 4


@entry_point
def receive_ready(numbers: Array, events: Array, table: Array, arena: Array, spans: Array, others: Array) -> Any:
    """Read from connections that are ready until the arena or the spans are full; return the number of spans.

    A span has what was kept of a connection and what was read behind it. others: i64 (n, 2), a descriptor and whether
    more can be sent there (_OUT) or it has ended (_IN). A connection of which a large frame is incomplete gets no span
    before the frame is complete.
    """
    count = 0
    used = 0
    other = 0
    if numbers[NEXT] >= numbers[EVENTS]:
        numbers[NEXT] = 0
        most = len(events) // numbers[EVENT_BYTES]
        numbers[EVENTS] = _wait(np.int32(numbers[EPOLL]), events.ctypes.data, np.int32(most), np.int32(0))
    start_of = np.uint64(arena.ctypes.data)
    while numbers[NEXT] < numbers[EVENTS] and count < len(spans) and other < len(others):
        at = numbers[NEXT] * numbers[EVENT_BYTES]
        data = at + numbers[EVENT_DATA]
        descriptor = np.int64(events[data]) | np.int64(events[data + 1]) << 8 | np.int64(events[data + 2]) << 16
        ready = np.int64(events[at])
        held = table[descriptor, HELD]
        if used + max(table[descriptor, ROOM], numbers[JOINED_BYTES]) + numbers[READ_BYTES] > len(arena):
            break
        numbers[NEXT] += 1
        if ready & _OUT != 0 or ready & _IN == 0:
            # A connection that is not read and has ended shows it when it is sent to.
            others[other, 0] = descriptor
            others[other, 1] = _OUT
            other += 1
        if ready & _IN == 0 or table[descriptor, SERIAL] == 0:
            continue
        start = used
        if held > numbers[JOINED_BYTES]:
            to = np.uint64(table[descriptor, ADDRESS]) + np.uint64(held)
            size = table[descriptor, ROOM] - held
        else:
            to = start_of + np.uint64(start + held)
            size = numbers[READ_BYTES]
        got = _receive(np.int32(descriptor), to, np.uint64(size), np.int32(_FLAGS))
        if got <= 0:
            if got == 0 or ready & _BROKEN != 0:
                others[other, 0] = descriptor
                others[other, 1] = _IN
                other += 1
            continue
        if held > numbers[JOINED_BYTES]:
            held += got
            table[descriptor, HELD] = held
            if held < table[descriptor, WANTED]:
                continue
            got = 0
        if held > 0:
            _copy(start_of + np.uint64(start), np.uint64(table[descriptor, ADDRESS]), np.uint64(held))
            table[descriptor, HELD] = 0
        used = start + held + got
        spans[count, DESCRIPTOR] = descriptor
        spans[count, START] = start
        spans[count, END] = used
        spans[count, NUMBER] = table[descriptor, SERIAL]
        count += 1
    numbers[USED] = used
    numbers[OTHERS] = other
    return count


@entry_point
def send_all(table: Array, descriptors: Array, serials: Array, data: Array, ends: Array, sent: Array) -> Any:
    """Send each connection its part of the data, once; return how many did not take all of it.

    ends: where each part ends. sent: set to the bytes that were sent of each; none to a connection that is not in the
    table with its serial number, or for which bytes wait already.
    """
    short = 0
    start = 0
    for row in range(len(descriptors)):
        end = ends[row]
        descriptor = descriptors[row]
        done = 0
        if (
            0 <= descriptor < len(table)
            and table[descriptor, SERIAL] == serials[row]
            and table[descriptor, BLOCKED] == 0
            and end > start
        ):
            address = np.uint64(data.ctypes.data) + np.uint64(start)
            done = max(0, _transmit(np.int32(descriptor), address, np.uint64(end - start), np.int32(_FLAGS)))
        sent[row] = done
        if done < end - start:
            short += 1
        start = end
    return short


def warm_up() -> None:
    """Compile both functions, or load them from the cache."""
    if INTERPRETED:
        return
    numbers, table = np.zeros(NUMBERS, np.int64), np.zeros((1, COLUMNS), np.int64)
    bytes_, words = np.zeros(0, np.uint8), np.zeros(0, np.int64)
    numbers[EVENTS], numbers[NEXT] = 0, -1
    numbers[EVENT_BYTES] = 1
    # No span is free, so nothing is read.
    receive_ready(numbers, bytes_, table, bytes_, np.zeros((0, SPAN_WORDS), np.int64), np.zeros((0, 2), np.int64))
    send_all(table, words, words, bytes_, words, words)
