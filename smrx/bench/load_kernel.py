"""The compiled part of the load generator: wait, receive, check, build frames and send, without Python between orders.

One call of drive() serves all connections for a slice of time with one epoll; Python gets control back between slices.
Calls the C library for sockets and clocks. Frames are built and checked in place: no object an order, no allocation.
Owns the frames on the wire of each protocol: the frames of smrx/wire/frames.py behind their lengths or in ZeroMQ's
ZMTP, and the packets of smrx/wire/soup_packets.py, with one command a frame. Opening connections is in
load_connections.py. Called by load_generator.py only.

Every answer is checked: it is OUTCOMES, for the next unanswered frame of its connection, and names the session and the
requests of that frame. The first fault ends the call.
"""

from typing import Any, Final, NamedTuple

import numpy as np
from numba import types
from numpy.typing import NDArray

from smrx.bench.load_flow import LoadFlow
from smrx.bench.load_histogram import bucket_of
from smrx.engine.kernels.jit import entry_point, fingerprint, inlined, kernel
from smrx.rings.ring_kernels import (
    CAPACITY,
    OWN,
    READER_SLEEPS,
    WRITER_SLEEPS,
    WRITTEN,
    may_sleep,
    read_bytes,
    ring_bell,
    write_bytes,
)
from smrx.wire import soup_packets
from smrx.wire.codes import OutcomeStatus
from smrx.wire.frames import HEADER_SIZE, MAGIC, VERSION, FrameKind
from smrx.wire.records import COMMAND_SIZE, OUTCOME_SIZE
from smrx.wire.soup_packets import PacketType

_types: Any = types
_external: Any = _types.ExternalFunction
_int32, _intp, _uintp = _types.int32, _types.intp, _types.uintp
_receive: Any = _external("recv", _intp(_int32, _uintp, _uintp, _int32))
_transmit: Any = _external("send", _intp(_int32, _uintp, _uintp, _int32))
_take: Any = _external("read", _intp(_int32, _uintp, _uintp))
_copy: Any = _external("memmove", _uintp(_uintp, _uintp, _uintp))
_read_clock: Any = _external("clock_gettime", _int32(_int32, _uintp))
#: Unlike epoll_wait it takes a time in nanoseconds. Linux 5.11 with glibc 2.35.
_wait: Any = _external("epoll_pwait2", _int32(_int32, _uintp, _int32, _uintp, _uintp))

_MONOTONIC: Final = 1
_SECOND_NS: Final = 1_000_000_000
#: MSG_DONTWAIT and MSG_NOSIGNAL of Linux.
_FLAGS: Final = 0x4040
_BROKEN: Final = 0x8 | 0x10  # EPOLLERR, EPOLLHUP
_MAX_READY: Final = 1024
#: Wait while the system takes no more bytes for some connection.
_RETRY_NS: Final = 100_000

# The protocols.
ZMTP: Final = 0
SOUP: Final = 1
TCP: Final = 2
#: A ring in shared memory, with the frames of TCP.
RING: Final = 3

#: What is before a frame of ZMTP 3.1: flags and size in one byte, or flags and size in eight bytes.
_LONG: Final = 2
_COMMAND: Final = 4
_SHORT_HEAD: Final = 2
_LONG_HEAD: Final = 9
MAX_HEAD: Final = _LONG_HEAD
_MAX_SHORT: Final = 255
#: What is before a frame on a plain connection: its length.
_LENGTH_HEAD: Final = 4
#: What is before a command and an outcome of SoupBinTCP: the length of the rest, and the type.
_SOUP_HEAD: Final = soup_packets.HEADER_SIZE
_SOUP_LENGTH: Final = COMMAND_SIZE + 1
_SEQUENCED: Final = int(PacketType.SEQUENCED)
_UNSEQUENCED: Final = int(PacketType.UNSEQUENCED)
_HEARTBEAT: Final = int(PacketType.SERVER_HEARTBEAT)
_DEBUG: Final = int(PacketType.DEBUG)

_HEADER_WORDS: Final = HEADER_SIZE // 8
_RECORD_WORDS: Final = COMMAND_SIZE // 8
_COMMANDS_WORD: Final = np.uint64(MAGIC | VERSION << 32 | int(FrameKind.COMMANDS) << 40)
_OUTCOMES_WORD: Final = np.uint64(MAGIC | VERSION << 32 | int(FrameKind.OUTCOMES) << 40)
_HIGH_HALF: Final = np.uint64(0xFFFF_FFFF_0000_0000)
_BYTE: Final = np.uint64(0xFF)
_REJECTED: Final = np.uint64(int(OutcomeStatus.REJECTED))
assert COMMAND_SIZE == OUTCOME_SIZE
#: drive() closes over it, so that it is compiled again when one of these changes.
_SOURCES: Final = fingerprint(
    *("smrx.bench.load_histogram", "smrx.bench.load_flow", "smrx.rings.ring_kernels"),
    *("smrx.wire.codes", "smrx.wire.frames", "smrx.wire.records", "smrx.wire.soup_packets"),
)

# What a frame is.
_SKIPPED: Final = 0
_ANSWER: Final = 1
_OTHER: Final = 2

# Why drive() returned.
ENDED: Final = 0  #: the slice is over, or everything is answered
CLOSED: Final = 1  #: the node closed a connection
REFUSED: Final = 2  #: a frame that is not OUTCOMES
WRONG: Final = 3  #: OUTCOMES that do not answer the frame
LOST: Final = 4  #: OUTCOMES of a later frame: the node has dropped one


class Connections(NamedTuple):
    """One row a connection. Frames of a connection are numbered from 0."""

    sockets: NDArray[np.int64]  #: file descriptors; of a ring its bell
    ring_in: NDArray[np.int64]  #: private words of the rings that are read and written, see ring_kernels.py
    ring_out: NDArray[np.int64]
    inbox: NDArray[np.uint8]  #: bytes received and not decoded,
    received: NDArray[np.int64]  #: and how many
    outbox: NDArray[np.uint8]  #: bytes of built frames,
    built: NDArray[np.int64]  #: how many,
    sent: NDArray[np.int64]  #: and how many of those are sent
    next_frame: NDArray[np.int64]  #: the frame to build next
    made: NDArray[np.int64]  #: frames built so far; one that is built again keeps its time
    answered: NDArray[np.int64]  #: frames answered
    due_ns: NDArray[np.int64]  #: when each unanswered frame was due, at its number modulo the frames under way
    session: NDArray[np.uint64]
    account: NDArray[np.uint64]  #: of all its commands; 0 leaves those of the flow
    first_request: NDArray[np.uint64]  #: request id of the first command of frame 0


class Counts(NamedTuple):
    """What drive() counts. Durations are counted for frames that were due in the measured time."""

    latency: NDArray[np.int64]  #: from the time at which a frame was due to its answer
    lag: NDArray[np.int64]  #: of the generator against the schedule
    turns: NDArray[np.int64]  #: how long a turn of the generator takes, so how long an answer may wait in it
    answered: NDArray[np.int64]  #: commands answered, in each bin of time since the start
    slowest_ns: NDArray[np.int64]  #: the longest latency in each bin
    totals: NDArray[np.int64]  #: see below
    fault: NDArray[np.uint64]  #: the frame that was a fault


# Places in Counts.totals.
UNDER_WAY: Final = 0  #: frames sent and not answered
REJECTED: Final = 1  #: commands with a rejection as their outcome
FAULT_AT: Final = 2  #: the connection of the fault
FAULT_BYTES: Final = 3  #: the length of its frame
CURSOR: Final = 4  #: open loop: the next frame of the schedule of all connections
FRAMES: Final = 5  #: frames answered
MEASURED: Final = 6  #: commands answered in the measured time
TOTALS: Final = 7


class Plan(NamedTuple):
    """What to do; all times are on CLOCK_MONOTONIC."""

    protocol: int
    epoll: int
    event_bytes: int  #: size of a struct epoll_event, and where its data are
    event_data: int
    frame_commands: int
    window: int  #: frames of a connection that may be under way
    interval_ns: float  #: between two frames of the schedule; 0 for a closed loop
    start_ns: int
    measure_ns: int  #: frames due from here on are measured
    stop_ns: int  #: no frame is due from here on
    bin_ns: int


@inlined
def _keep(_number: Any) -> None:
    """Do nothing with a number."""


@inlined
def _now(clock: Any) -> Any:
    _read_clock(np.int32(_MONOTONIC), clock.ctypes.data)
    return clock[0] * _SECOND_NS + clock[1]


@inlined
def _address(rows: Any, row: Any) -> Any:
    return np.uint64(rows.ctypes.data) + np.uint64(row) * np.uint64(rows.shape[1])


@inlined
def _due(plan: Any, order: Any) -> Any:
    """Return when a frame of the whole schedule is due."""
    return plan.start_ns + np.int64(order * plan.interval_ns)


@kernel
def _build(links: Any, flow: Any, plan: Any, frame: Any, c: Any, due_ns: Any) -> Any:
    """Append the next frame of connection c to its outbox."""
    number = links.next_frame[c]
    count = plan.frame_commands
    size = HEADER_SIZE + count * COMMAND_SIZE
    words = _HEADER_WORDS
    if plan.protocol == SOUP:
        size = COMMAND_SIZE
        words = 0
    outbox = links.outbox[c]
    if links.built[c] + MAX_HEAD + size > len(outbox):
        # Frames under way fit; what is sent is at the front.
        left = links.built[c] - links.sent[c]
        _copy(_address(links.outbox, c), _address(links.outbox, c) + np.uint64(links.sent[c]), np.uint64(left))
        links.built[c], links.sent[c] = left, 0
    at = links.built[c]
    if plan.protocol == SOUP:
        outbox[at], outbox[at + 1], outbox[at + 2] = 0, _SOUP_LENGTH, _UNSEQUENCED
        at += _SOUP_HEAD
    elif plan.protocol in (TCP, RING):
        for place in range(_LENGTH_HEAD):
            outbox[at + place] = (size >> (8 * place)) & 0xFF
        at += _LENGTH_HEAD
    elif size <= _MAX_SHORT:
        outbox[at], outbox[at + 1] = 0, size
        at += _SHORT_HEAD
    else:
        outbox[at] = _LONG
        for place in range(8):
            outbox[at + 1 + place] = (size >> (56 - 8 * place)) & 0xFF
        at += _LONG_HEAD
    if plan.protocol != SOUP:
        frame[0], frame[1] = _COMMANDS_WORD, np.uint64(count)
        frame[2], frame[3] = np.uint64(number), np.uint64(0)
    first = number * count
    for command in range(first, first + count):
        piece = command // flow.length[c]
        source = flow.start[c] + command - piece * flow.length[c]
        for word in range(_RECORD_WORDS):
            frame[words + word] = flow.words[source, word]
        frame[words + 1] = links.session[c]
        frame[words + 2] = links.first_request[c] + np.uint64(command)
        if links.account[c]:
            frame[words + 3] = (frame[words + 3] & _HIGH_HALF) | links.account[c]
        renamed = flow.own[source] * flow.pieces[piece % len(flow.pieces)]
        renamed += flow.earlier[source] * flow.pieces[(piece - 1) % len(flow.pieces)]
        frame[words + 4] = flow.ids[source] + renamed
        words += _RECORD_WORDS
    _copy(_address(links.outbox, c) + np.uint64(at), frame.ctypes.data, np.uint64(size))
    links.built[c] = at + size
    if number >= links.made[c]:
        links.due_ns[c, number % plan.window] = due_ns
        links.made[c] = number + 1
    links.next_frame[c] = number + 1


@kernel
def _fill(links: Any, flow: Any, counts: Any, plan: Any, frame: Any, c: Any, now_ns: Any) -> Any:
    """Build what connection c may send now, and send it."""
    last = flow.length[c] * flow.repeats[c] // plan.frame_commands
    while links.next_frame[c] - links.answered[c] < plan.window and links.next_frame[c] < last:
        due_ns = now_ns
        if links.next_frame[c] >= links.made[c]:
            if plan.interval_ns > 0:
                due_ns = _due(plan, links.next_frame[c] * len(links.sockets) + c)
            if due_ns > now_ns or now_ns >= plan.stop_ns:
                break
        _build(links, flow, plan, frame, c, due_ns)
        counts.totals[UNDER_WAY] += 1
    _flush(links, c)


@kernel
def _flush(links: Any, c: Any) -> Any:
    left = links.built[c] - links.sent[c]
    if left:
        address = _address(links.outbox, c) + np.uint64(links.sent[c])
        if links.ring_out[c, CAPACITY]:
            done = write_bytes(links.ring_out[c], np.int64(address), left)
            if done > 0:
                ring_bell(links.ring_out[c], READER_SLEEPS)
        else:
            done = _transmit(np.int32(links.sockets[c]), address, np.uint64(left), np.int32(_FLAGS))
        if done == left:
            links.built[c] = links.sent[c] = 0
        elif done > 0:
            links.sent[c] += done


@kernel
def _head_of(inbox: Any, protocol: Any, at: Any, end: Any) -> Any:
    """Return (bytes before the next frame, bytes of the frame, its kind); 0 if it is incomplete."""
    if protocol == SOUP:
        if end - at < _SOUP_HEAD:
            return 0, 0, 0
        size = (np.int64(inbox[at]) << 8 | np.int64(inbox[at + 1])) - 1
        if end - at - _SOUP_HEAD < size:
            return 0, 0, 0
        kind = np.int64(inbox[at + 2])
        if kind == _SEQUENCED and size == OUTCOME_SIZE:
            return _SOUP_HEAD, size, _ANSWER
        return _SOUP_HEAD, size, _SKIPPED if kind in (_HEARTBEAT, _DEBUG) else _OTHER
    if protocol in (TCP, RING):
        if end - at < _LENGTH_HEAD:
            return 0, 0, 0
        size = np.int64(0)
        for place in range(_LENGTH_HEAD):
            size |= np.int64(inbox[at + place]) << (8 * place)
        return (_LENGTH_HEAD, size, _ANSWER) if end - at - _LENGTH_HEAD >= size else (0, 0, 0)
    if end - at < _SHORT_HEAD:
        return 0, 0, 0
    flags = inbox[at]
    head, size = _SHORT_HEAD, np.int64(inbox[at + 1])
    if flags & _LONG:
        if end - at < _LONG_HEAD:
            return 0, 0, 0
        head, size = _LONG_HEAD, np.int64(0)
        for place in range(8):
            size = size << 8 | np.int64(inbox[at + 1 + place])
    if end - at - head < size:
        return 0, 0, 0
    return head, size, _SKIPPED if flags & _COMMAND else _ANSWER


@kernel
def _check(links: Any, counts: Any, plan: Any, frame: Any, size: Any, c: Any) -> Any:
    """Return ENDED if a frame answers the first unanswered frame of connection c, otherwise what is wrong."""
    count = plan.frame_commands
    number = links.answered[c]
    words = 0
    if plan.protocol != SOUP:
        if size < HEADER_SIZE or frame[0] != _OUTCOMES_WORD:
            return REFUSED
        if np.uint64(number) < frame[2] < np.uint64(links.next_frame[c]):
            return LOST
        if frame[1] != np.uint64(count) or frame[2] != np.uint64(number):
            return WRONG
        words = _HEADER_WORDS
    if size != 8 * words + count * OUTCOME_SIZE:
        return WRONG
    request = links.first_request[c] + np.uint64(number * count)
    for _ in range(count):
        if frame[words + 1] != links.session[c] or frame[words + 2] != request:
            return WRONG
        if frame[words] & _BYTE == _REJECTED:
            counts.totals[REJECTED] += 1
        request += np.uint64(1)
        words += _RECORD_WORDS
    return ENDED


@kernel
def _count(links: Any, counts: Any, plan: Any, c: Any, now_ns: Any) -> Any:
    """Count the answer to the first unanswered frame of connection c."""
    due_ns = links.due_ns[c, links.answered[c] % plan.window]
    latency_ns = now_ns - due_ns
    links.answered[c] += 1
    counts.totals[UNDER_WAY] -= 1
    counts.totals[FRAMES] += 1
    place = min((now_ns - plan.start_ns) // plan.bin_ns, len(counts.answered) - 1)
    counts.answered[place] += plan.frame_commands
    counts.slowest_ns[place] = max(counts.slowest_ns[place], latency_ns)
    if plan.measure_ns <= due_ns:
        counts.latency[bucket_of(latency_ns)] += 1
    if plan.measure_ns <= now_ns < plan.stop_ns:
        counts.totals[MEASURED] += plan.frame_commands


@kernel
def _read(links: Any, counts: Any, plan: Any, frame: Any, clock: Any, c: Any) -> Any:
    """Receive for connection c and count its answers; return ENDED or a fault."""
    inbox = links.inbox[c]
    address = _address(links.inbox, c) + np.uint64(links.received[c])
    room = len(inbox) - links.received[c]
    if links.ring_in[c, CAPACITY]:
        got = read_bytes(links.ring_in[c], np.int64(address), room)
        if got <= 0:
            return CLOSED if got < 0 else ENDED
        ring_bell(links.ring_in[c], WRITER_SLEEPS)
    else:
        got = _receive(np.int32(links.sockets[c]), address, np.uint64(room), np.int32(_FLAGS))
        if got <= 0:
            return CLOSED if got == 0 else ENDED
    now_ns = _now(clock)
    at, end = 0, links.received[c] + got
    while True:
        head, size, kind = _head_of(inbox, plan.protocol, at, end)
        if not head:
            break
        if kind != _SKIPPED:
            _copy(frame.ctypes.data, _address(links.inbox, c) + np.uint64(at + head), np.uint64(size))
            found = REFUSED if kind == _OTHER else _check(links, counts, plan, frame, size, c)
            if found:
                counts.totals[FAULT_BYTES] = size
                counts.fault[:] = frame[: len(counts.fault)]
                return found
            _count(links, counts, plan, c, now_ns)
        at += head + size
    if at:
        _copy(_address(links.inbox, c), _address(links.inbox, c) + np.uint64(at), np.uint64(end - at))
    links.received[c] = end - at
    return ENDED


@entry_point
def drive(links: Connections, flow: LoadFlow, counts: Counts, plan: Plan, connection_of: Any, until_ns: int) -> Any:
    """Run until a time, until all is answered after `stop_ns`, or until a fault; return why.

    `connection_of` has the connection of each file descriptor. Frames that may be sent again, because their
    connection is a new one, are those from `next_frame` on.
    """
    _keep(_SOURCES)
    clock = np.zeros(2, np.int64)
    timeout = np.zeros(2, np.int64)
    frame = np.zeros(links.inbox.shape[1] // 8 + 1, np.uint64)
    events = np.zeros(_MAX_READY * plan.event_bytes, np.uint8)
    totals = counts.totals
    connections = len(links.sockets)
    now_ns = _now(clock)
    for c in range(connections):
        _fill(links, flow, counts, plan, frame, c, now_ns)
    blocked = 1
    while True:
        turn_ns = now_ns
        now_ns = _now(clock)
        # Frames that have become due. One whose connection has no room is sent after the next answer there.
        if plan.interval_ns > 0:
            while True:
                due_ns = _due(plan, totals[CURSOR])
                if due_ns > now_ns or due_ns >= plan.stop_ns:
                    break
                c = totals[CURSOR] % connections
                if links.next_frame[c] * connections + c == totals[CURSOR] and (
                    links.next_frame[c] - links.answered[c] < plan.window
                ):
                    _fill(links, flow, counts, plan, frame, c, now_ns)
                    if plan.measure_ns <= due_ns:
                        counts.lag[bucket_of(now_ns - due_ns)] += 1
                totals[CURSOR] += 1
        if blocked:
            blocked = 0
            for c in range(connections):
                _flush(links, c)
                blocked |= links.built[c] > 0
        now_ns = _now(clock)
        if now_ns >= plan.measure_ns:
            counts.turns[bucket_of(now_ns - turn_ns)] += 1
        if now_ns >= until_ns or (now_ns >= plan.stop_ns and not totals[UNDER_WAY]):
            return ENDED
        wait_ns = until_ns - now_ns
        if plan.interval_ns > 0 and now_ns < plan.stop_ns:
            wait_ns = min(wait_ns, max(0, _due(plan, totals[CURSOR]) - now_ns))
        if blocked:
            wait_ns = min(wait_ns, _RETRY_NS)
        if plan.protocol == RING:
            for c in range(connections):
                if may_sleep(links.ring_in[c], READER_SLEEPS, WRITTEN, links.ring_in[c, OWN]):
                    continue
                fault = _read(links, counts, plan, frame, clock, c)
                if fault:
                    totals[FAULT_AT] = c
                    return fault
                _fill(links, flow, counts, plan, frame, c, _now(clock))
                blocked |= links.built[c] > 0
                wait_ns = 0
        timeout[0], timeout[1] = wait_ns // _SECOND_NS, wait_ns % _SECOND_NS
        ready = _wait(np.int32(plan.epoll), events.ctypes.data, np.int32(_MAX_READY), timeout.ctypes.data, np.uint64(0))
        now_ns = _now(clock)
        for place in range(ready):
            at = place * plan.event_bytes
            data = at + plan.event_data
            socket = np.int64(events[data]) | np.int64(events[data + 1]) << 8 | np.int64(events[data + 2]) << 16
            c = connection_of[socket]
            if plan.protocol == RING and socket == links.sockets[c]:
                _take(np.int32(socket), clock.ctypes.data, np.uint64(8))
            fault = _read(links, counts, plan, frame, clock, c)
            if not fault and events[at] & _BROKEN:
                fault = CLOSED
            if fault:
                totals[FAULT_AT] = c
                return fault
            _fill(links, flow, counts, plan, frame, c, _now(clock))
            blocked |= links.built[c] > 0
