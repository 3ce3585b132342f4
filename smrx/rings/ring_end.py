"""One end of a pair of rings: send and receive bytes, sleep until there are some, notice that the other end is gone.

Owns the memory, the bells (eventfds) and the Unix socket over which the memory was handed over: the kernel closes that
socket when the other process dies, so it is watched for its end and carries nothing else. Not for several threads.
Called by listeners of rings, clients and benchmarks.
"""

import contextlib
import os
import select
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from smrx.rings import ring_kernels, ring_memory
from smrx.rings.ring_kernels import HEADER_BYTES, IS_BROKEN
from smrx.rings.ring_memory import RingError, RingMemory

DEFAULT_CAPACITY: Final = 1 << 20
_BELL_BYTES: Final = 8


class RingEnd:
    """The server's or the client's end. Raises RingError where a method says so, and nothing else."""

    def __init__(self, control: socket.socket, given: RingMemory, *, is_server: bool) -> None:
        control.setblocking(False)
        self.control = control
        self._given = given
        capacity = given.capacity
        words = np.frombuffer(given.memory, np.uint8)
        # The first ring is from the client to the server.
        to_server, to_client = (words.ctypes.data + ring * (HEADER_BYTES + capacity) for ring in range(2))
        del words
        own, other = given.bells if is_server else given.bells[::-1]
        #: Readable when this end has to look again; see drain_bell().
        self.bell = own
        self._inbound = _side(to_server if is_server else to_client, capacity, other)
        self._outbound = _side(to_client if is_server else to_server, capacity, other)

    def send(self, data: NDArray[np.uint8], start: int = 0) -> int:
        """Send what there is room for of `data` from `start` on; return how many bytes. Raises RingError if broken."""
        return self._checked(ring_kernels.write(self._outbound, data, start, len(data) - start))

    def receive(self, data: NDArray[np.uint8], start: int = 0) -> int:
        """Receive into `data` from `start` on; return how many bytes, 0 for none. Raises RingError if broken."""
        return self._checked(ring_kernels.read(self._inbound, data, start, len(data) - start))

    def may_sleep(self, *, until_room: bool = False, until_written: bool = True) -> bool:
        """Return whether this end may wait for its bell: nothing has arrived, and with `until_room` there is no room.

        Call it before each wait. The other end then rings the bell once it has written or, with `until_room`, read.
        """
        if until_room and not ring_kernels.sleep_until_read(self._outbound):
            return False
        return not until_written or bool(ring_kernels.sleep_until_written(self._inbound))

    def drain_bell(self) -> None:
        """Make the bell silent; call when it was readable, before receive()."""
        try:
            os.read(self.bell, _BELL_BYTES)
        except BlockingIOError:
            return

    def is_other_gone(self) -> bool:
        """Return whether the other process has closed its end or died. What it wrote before can still be received."""
        try:
            # Nothing is sent here: a process that sends something is not one of ours.
            self.control.recv(1)
        except BlockingIOError:
            return False
        except OSError:
            return True
        return True

    def wait(self, timeout: float, *, until_room: bool = False) -> bool:
        """Wait until something has arrived (or there is room), up to `timeout` seconds; return False if nothing has.

        Returns True, too, when the other end is gone.
        """
        if not self.may_sleep(until_room=until_room):
            return True
        watched: list[Any] = [self.bell, self.control]
        found, _, _ = select.select(watched, [], [], timeout)
        if self.bell in found:
            self.drain_bell()
        return bool(found)

    def close(self) -> None:
        """Release everything; the other end notices. Whatever is called later raises RingError."""
        self._inbound[ring_kernels.BROKEN] = self._outbound[ring_kernels.BROKEN] = 1
        self.control.close()
        for bell in self._given.bells:
            os.close(bell)
        self._given.memory.close()

    @property
    def words(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The private words of the ring that is read and of the one that is written, for compiled code."""
        return self._inbound, self._outbound

    def _checked(self, count: int) -> int:
        if count == IS_BROKEN:
            raise RingError("the other end of the ring has written an impossible position")
        return count


def offer(control: socket.socket, capacity: int = DEFAULT_CAPACITY) -> RingEnd:
    """Return the server's end of new rings, for the process that has connected. Raises RingError."""
    return RingEnd(control, ring_memory.offer(control, capacity), is_server=True)


def accept(control: socket.socket) -> RingEnd:
    """Return the client's end of the rings that the other process offers. Raises RingError."""
    return RingEnd(control, ring_memory.accept(control), is_server=False)


def connect(path: str | Path, timeout: float = 5.0) -> RingEnd:
    """Connect to a server of rings by the path of its Unix socket. Raises RingError."""
    control = socket.socket(socket.AF_UNIX)
    control.settimeout(timeout)
    try:
        with _short(Path(path)) as short:
            control.connect(short)
        return accept(control)
    except OSError as error:
        control.close()
        raise RingError(f"{path}: {error.strerror or error}") from None
    except RingError:
        control.close()
        raise


def listen(path: Path) -> socket.socket:
    """Return a listening socket that only this user may connect to, in place of one that is left over.

    Raises OSError. The directory has to belong to this process alone.
    """
    listener = socket.socket(socket.AF_UNIX)
    try:
        path.unlink(missing_ok=True)
        with _short(path) as short:
            listener.bind(short)
        path.chmod(0o600)
        listener.listen()
        listener.setblocking(False)
    except OSError:
        listener.close()
        raise
    return listener


@contextlib.contextmanager
def _short(path: Path) -> Iterator[str]:
    """Yield a name of a path that fits the address of a Unix socket, which has about a hundred bytes."""
    directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{directory}/{path.name}"
    finally:
        os.close(directory)


def _side(address: int, capacity: int, bell: int) -> NDArray[np.int64]:
    words = np.zeros(ring_kernels.WORDS, np.int64)
    words[ring_kernels.HEADER], words[ring_kernels.DATA] = address, address + HEADER_BYTES
    words[ring_kernels.CAPACITY], words[ring_kernels.BELL] = capacity, bell
    return words
