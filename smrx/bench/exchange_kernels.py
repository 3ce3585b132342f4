"""Send messages of 64 bytes to another process and count what comes back, in compiled code, over rings and sockets.

The same loops for every way, so that only the way differs. A message is numbered from 1 in its first word; 0 ends the
echo. Called by ring_bench.py, in both processes.
"""

from typing import Any, Final

import numpy as np
from numba import types

from smrx.engine.kernels.jit import Array, entry_point, fingerprint, kernel
from smrx.rings.ring_kernels import (
    CAPACITY,
    OWN,
    READ,
    READER_SLEEPS,
    WRITER_SLEEPS,
    WRITTEN,
    may_sleep,
    read_bytes,
    ring_bell,
    write_bytes,
)

_types: Any = types
_int32, _intp, _uintp = _types.int32, _types.intp, _types.uintp
_receive: Any = _types.ExternalFunction("recv", _intp(_int32, _uintp, _uintp, _int32))
_transmit: Any = _types.ExternalFunction("send", _intp(_int32, _uintp, _uintp, _int32))
_take: Any = _types.ExternalFunction("read", _intp(_int32, _uintp, _uintp))
_poll: Any = _types.ExternalFunction("poll", _int32(_uintp, _uintp, _int32))
_yield: Any = _types.ExternalFunction("sched_yield", _int32())
_read_clock: Any = _types.ExternalFunction("clock_gettime", _int32(_int32, _uintp))

# The ways.
SOCKET: Final = 0
#: A ring; a side with nothing to do sleeps until its bell rings, or looks again at once.
RING: Final = 1
SPINNING_RING: Final = 2

MESSAGE_BYTES: Final = 64
_MESSAGE_WORDS: Final = MESSAGE_BYTES // 8
_NO_SIGNAL: Final = 0x4000
_MONOTONIC: Final = 1
_SECOND_NS: Final = 1_000_000_000
_POLL_IN: Final = 1
#: A sleeper looks again after so long, if the other process has died.
_SLEEP_MS: Final = 1_000
#: Looks before the processor is offered to another process: with one processor nothing would ever come.
_SPINS: Final = 2_000

#: Words of a way: which it is, the socket, the bell of this side.
WAY: Final = 0
DESCRIPTOR: Final = 1
BELL: Final = 2
_POLLED: Final = 3
_DRAINED: Final = 4
WAY_WORDS: Final = 5


@kernel
def _address(array: Any) -> Any:
    return np.int64(array.ctypes.data)


@kernel
def _sleep(way: Array) -> None:
    """Wait for the bell of this side, and make it silent."""
    way[_POLLED] = way[BELL] | _POLL_IN << 32
    if _poll(np.uint64(_address(way) + 8 * _POLLED), np.uint64(1), np.int32(_SLEEP_MS)) > 0:
        _take(np.int32(way[BELL]), np.uint64(_address(way) + 8 * _DRAINED), np.uint64(8))


@kernel
def _send(way: Array, outbound: Array, address: Any, size: Any) -> Any:
    """Send some bytes, all of them; return False if the other side has gone."""
    done = 0
    while done < size:
        if way[WAY] == SOCKET:
            count = _transmit(
                np.int32(way[DESCRIPTOR]), np.uint64(address + done), np.uint64(size - done), np.int32(_NO_SIGNAL)
            )
            if count <= 0:
                return False
        else:
            count = write_bytes(outbound, address + done, size - done)
            if count < 0:
                return False
            if way[WAY] == RING:
                ring_bell(outbound, READER_SLEEPS)
                if count == 0 and may_sleep(outbound, WRITER_SLEEPS, READ, outbound[OWN] - outbound[CAPACITY]):
                    _sleep(way)
        done += count
    return True


@kernel
def _wait_for_bytes(way: Array, inbound: Array, address: Any, room: Any) -> Any:
    """Receive at least one byte; return how many, 0 if the other side has gone."""
    if way[WAY] == SOCKET:
        return max(0, _receive(np.int32(way[DESCRIPTOR]), np.uint64(address), np.uint64(room), np.int32(0)))
    looks = 0
    while True:
        count = read_bytes(inbound, address, room)
        if count != 0:
            if way[WAY] == RING:
                ring_bell(inbound, WRITER_SLEEPS)
            return max(0, count)
        looks += 1
        if way[WAY] == RING:
            if may_sleep(inbound, READER_SLEEPS, WRITTEN, inbound[OWN]):
                _sleep(way)
        elif looks % _SPINS == 0:
            _yield()


@kernel
def _now(clock: Array) -> Any:
    _read_clock(np.int32(_MONOTONIC), np.uint64(_address(clock)))
    return clock[0] * _SECOND_NS + clock[1]


def _compiled(source: int) -> tuple[Any, ...]:
    """Return the entry points, compiled again whenever a source changes (see jit.fingerprint)."""
    version = source

    def echo(way: Array, inbound: Array, outbound: Array, buffer: Array) -> Any:
        """Send back what arrives until a message with the number 0; return how many were sent back. buffer: i64."""
        if version == 0:  # never true: it makes the version a part of the compiled code
            return 0
        held = 0
        total = 0
        while True:
            count = _wait_for_bytes(way, inbound, _address(buffer) + held, 8 * len(buffer) - held)
            if count == 0:
                return total
            held += count
            whole = held // MESSAGE_BYTES
            if whole == 0:
                continue
            if buffer[(whole - 1) * _MESSAGE_WORDS] == 0:
                return total
            if not _send(way, outbound, _address(buffer), whole * MESSAGE_BYTES):
                return total
            total += whole
            rest = held - whole * MESSAGE_BYTES
            for word in range((rest + 7) // 8):
                buffer[word] = buffer[whole * _MESSAGE_WORDS + word]
            held = rest

    def drive(
        way: Array, inbound: Array, outbound: Array, buffer: Array, messages: int, window: int, latencies: Array
    ) -> Any:
        """Send messages with `window` under way; return the nanoseconds, -1 if the other side has gone or is wrong.

        latencies: i64, of each message from before it is sent until it is back.
        """
        if version == 0:
            return 0
        clock = np.zeros(2, np.int64)
        outgoing = np.zeros(window * _MESSAGE_WORDS, np.int64)
        sent_ns = np.zeros(window, np.int64)
        sent = 0
        back = 0
        held = 0
        begin_ns = _now(clock)
        while back < messages:
            count = min(window - (sent - back), messages - sent)
            if count > 0:
                now_ns = _now(clock)
                for number in range(count):
                    outgoing[number * _MESSAGE_WORDS] = sent + number + 1
                    sent_ns[(sent + number) % window] = now_ns
                if not _send(way, outbound, _address(outgoing), count * MESSAGE_BYTES):
                    return -1
                sent += count
            got = _wait_for_bytes(way, inbound, _address(buffer) + held, 8 * len(buffer) - held)
            if got == 0:
                return -1
            now_ns = _now(clock)
            held += got
            whole = held // MESSAGE_BYTES
            for number in range(whole):
                if buffer[number * _MESSAGE_WORDS] != back + 1:
                    return -1
                latencies[back] = now_ns - sent_ns[back % window]
                back += 1
            rest = held - whole * MESSAGE_BYTES
            for word in range((rest + 7) // 8):
                buffer[word] = buffer[whole * _MESSAGE_WORDS + word]
            held = rest
        return _now(clock) - begin_ns

    def stop(way: Array, outbound: Array, buffer: Array) -> Any:
        """End the echo of the other side."""
        if version == 0:
            return False
        buffer[:_MESSAGE_WORDS] = 0
        return _send(way, outbound, _address(buffer), MESSAGE_BYTES)

    return tuple(map(entry_point, (echo, drive, stop)))


echo, drive, stop = _compiled(fingerprint(__name__, "smrx.rings.ring_kernels", "smrx.engine.kernels.jit"))
