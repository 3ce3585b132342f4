"""Make the memory of a pair of rings, hand it to a process of the same user, and check what is handed over.

Owns the layout of the memory (two rings, one behind the other), its seals, and the greeting: one message on a Unix
socket with three descriptors. The server makes the memory and seals its size, so neither side can make the other read
behind its end, which would kill it (SIGBUS). Both check that the other process runs under the same user (SO_PEERCRED).
No waiting. Called by ring_end.py.
"""

import fcntl
import mmap
import os
import socket
import stat
from struct import Struct
from typing import Final, NamedTuple

from smrx.rings.ring_kernels import HEADER_BYTES

_GREETING: Final = Struct("<8sII")
_MAGIC: Final = b"SMRXRING"
_VERSION: Final = 1
_DESCRIPTORS: Final = 3
_SEALS: Final = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
_PEER_CREDENTIALS: Final = Struct("iII")  # struct ucred: process, user, group
#: Bytes of a ring.
LEAST_CAPACITY: Final = 1 << 12
MOST_CAPACITY: Final = 1 << 26


class RingError(Exception):
    """A ring cannot be made or used; the message says why."""


class RingMemory(NamedTuple):
    """The memory of two rings, and the descriptors that go with it."""

    memory: mmap.mmap
    capacity: int  #: of each ring
    bells: tuple[int, int]  #: eventfds: the server's, the client's


def check_capacity(capacity: int) -> None:
    """Raise RingError unless a capacity is a power of two within the bounds."""
    if not LEAST_CAPACITY <= capacity <= MOST_CAPACITY or capacity & (capacity - 1):
        raise RingError(
            f"expected a ring of a power of two from {LEAST_CAPACITY} to {MOST_CAPACITY} bytes, found {capacity}"
        )


def size_of(capacity: int) -> int:
    """Return the bytes of the memory of two rings."""
    return 2 * (HEADER_BYTES + capacity)


def offer(control: socket.socket, capacity: int) -> RingMemory:
    """Make the memory and hand it to the process at the other end of a Unix socket. Raises RingError."""
    check_capacity(capacity)
    _check_same_user(control)
    bells: list[int] = []
    descriptor = -1
    try:
        descriptor = os.memfd_create("smrx-ring", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(descriptor, size_of(capacity))
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, _SEALS)
        bells = [os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK) for _ in range(2)]
        memory = mmap.mmap(descriptor, size_of(capacity))
        # A new connection has room for one message.
        socket.send_fds(control, [_GREETING.pack(_MAGIC, _VERSION, capacity)], [descriptor, *bells])
    except OSError as error:
        for bell in bells:
            os.close(bell)
        raise RingError(f"a ring cannot be made: {error.strerror}") from None
    finally:
        if descriptor >= 0:
            os.close(descriptor)
    return RingMemory(memory, capacity, (bells[0], bells[1]))


def accept(control: socket.socket) -> RingMemory:
    """Take the memory that a server offers. Raises RingError."""
    _check_same_user(control)
    try:
        data, descriptors, _, _ = socket.recv_fds(control, _GREETING.size, _DESCRIPTORS)
    except OSError as error:
        raise RingError(f"no ring was offered: {error.strerror or error}") from None
    memory: mmap.mmap | None = None
    try:
        if len(data) != _GREETING.size or len(descriptors) != _DESCRIPTORS:
            raise RingError(
                f"expected a greeting of {_GREETING.size} bytes with {_DESCRIPTORS} descriptors, found {len(data)} "
                f"bytes with {len(descriptors)}"
            )
        magic, version, capacity = _GREETING.unpack(data)
        if (magic, version) != (_MAGIC, _VERSION):
            raise RingError(f"expected a ring of version {_VERSION}, found {magic!r} of version {version}")
        check_capacity(capacity)
        found = os.fstat(descriptors[0])
        if not stat.S_ISREG(found.st_mode) or found.st_size != size_of(capacity):
            raise RingError(f"expected memory of {size_of(capacity)} bytes, found {found.st_size}")
        if fcntl.fcntl(descriptors[0], fcntl.F_GET_SEALS) & _SEALS != _SEALS:
            raise RingError("the memory of the ring is not sealed: its size could change")
        memory = mmap.mmap(descriptors[0], size_of(capacity))
    except OSError as error:
        raise RingError(f"the memory of the ring cannot be used: {error.strerror}") from None
    finally:
        for descriptor in descriptors[: 1 if memory is not None else None]:
            os.close(descriptor)
    return RingMemory(memory, capacity, (descriptors[1], descriptors[2]))


def _check_same_user(control: socket.socket) -> None:
    raw = control.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER_CREDENTIALS.size)
    _, user, _ = _PEER_CREDENTIALS.unpack(raw)
    if user != os.geteuid():
        raise RingError(f"expected a process of user {os.geteuid()}, found one of user {user}")
