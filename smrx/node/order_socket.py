"""Move the frames of order entry over ZeroMQ: one ROUTER socket, many frames at a time.

Owns the socket, the buffers into which a turn's frames are received, and the replies that wait (peer_outbox.py). Frames
are received and answers sent in compiled code, without a Python object for each (socket_kernels.py); where pyzmq does
not say where libzmq's functions are, or nothing is compiled, one by one. Frames of a connection that does not read its
answers are dropped: it gets no more, and sends them again later. Called by the reactor; decides nothing about a frame.
"""

from typing import Final

import numpy as np
import zmq
from numpy.typing import NDArray

from smrx.engine.kernels.jit import INTERPRETED
from smrx.node import compiled_entry, libzmq, socket_kernels
from smrx.node.admission import Admission
from smrx.node.frame_block import ROW_WORDS, SENDER, AnswerBlock, FrameBlock, Senders, block_of, key_of
from smrx.node.peer_outbox import Bounds, PeerOutbox
from smrx.node.principal import EVERYTHING, Principal, Sender
from smrx.wire import frames, tcp_address
from smrx.wire.tcp_keepalive import close_unread_connections

#: Frames of one connection that ZeroMQ queues for this node: 8 MiB of the largest; the rest stays with the client.
_QUEUED_FRAMES: Final = 32
#: What clients may leave unread. ZeroMQ keeps as many answers, of up to 256 KiB; the outcomes of a window of 64 K
#: requests wait here. A client is behind with less than that: it then sends faster than it reads. The answers to a
#: window of lone orders are not too much: 1,024 of them cost 300 KiB, and one turn may answer all.
BOUNDS: Final = Bounds(
    messages=32, buffer_bytes=0, peer_bytes=4 << 20, all_bytes=64 << 20, behind_bytes=2 << 20, seconds=30.0
)
#: What a turn receives: enough to fill the largest entry, few enough to return to Raft in time.
_FRAMES_PER_TURN: Final = 4096
_BYTES_PER_TURN: Final = 4 << 20
_FRAMES_ONE_BY_ONE: Final = 256
#: Bytes of the identities, user ids and addresses of a turn.
_NAME_BYTES: Final = 1 << 18


class OrderSocket:
    """The order entry port of a node."""

    def __init__(self, context: "zmq.Context[zmq.Socket[bytes]]", address: str, admission: Admission) -> None:
        """Bind. Raises zmq.ZMQError."""
        self.socket = context.socket(zmq.ROUTER)
        admission.prepare(self.socket, frames.MAX_FRAME_BYTES)
        self.socket.rcvhwm = _QUEUED_FRAMES
        self.outbox = PeerOutbox(self.socket, BOUNDS)
        close_unread_connections(self.socket)
        tcp_address.bind(self.socket, address)
        self._admission = admission
        #: Whether frames may be left to receive.
        self.has_more = False
        self._numbers: NDArray[np.int64] | None = None
        functions = None if INTERPRETED else libzmq.functions()
        if functions is not None:
            self._prepare_buffers(functions)

    def _prepare_buffers(self, functions: dict[str, int]) -> None:
        numbers = self._numbers = np.zeros(socket_kernels.SOCKET_NUMBERS, np.int64)
        self._message = libzmq.new_message()
        self._properties = [np.frombuffer(bytearray(name), np.uint8) for name in (b"User-Id\0", b"Peer-Address\0")]
        numbers[socket_kernels.SOCKET] = self.socket.underlying
        numbers[socket_kernels.MESSAGE] = libzmq.address_of(self._message)
        numbers[socket_kernels.HAS_KEYS] = self._admission.has_keys
        numbers[socket_kernels.USER_ID], numbers[socket_kernels.PEER_ADDRESS] = (
            name.ctypes.data for name in self._properties
        )
        for number, name in socket_kernels.FUNCTIONS.items():
            numbers[number] = functions[name]
        numbers[socket_kernels.AGAIN], numbers[socket_kernels.UNREACHABLE] = zmq.EAGAIN, zmq.EHOSTUNREACH
        self._data = np.empty(_BYTES_PER_TURN, np.uint8)
        self._rows = np.zeros((_FRAMES_PER_TURN, ROW_WORDS), np.int64)
        self._names = np.empty(_NAME_BYTES, np.uint8)
        self._senders = np.zeros((_FRAMES_PER_TURN, socket_kernels.SENDER_WORDS), np.int64)
        self._cells = np.zeros(4 * _FRAMES_PER_TURN, np.int64)

    def receive(self) -> FrameBlock | None:
        """Return the frames that have arrived, None if there are none. Valid until the next call."""
        block = self._receive_one_by_one() if self._numbers is None else self._receive_many(self._numbers)
        if block is not None and self.outbox.blocked:
            behind = [self.outbox.is_behind(identity) for identity in block.senders.identities]
            if any(behind):
                block = block._replace(rows=block.rows[~np.array(behind)[block.rows[:, SENDER]]])
        return block if block is not None and len(block.rows) else None

    def _receive_many(self, numbers: NDArray[np.int64]) -> FrameBlock | None:
        count = compiled_entry.receive_messages(
            numbers, self._data, frames.MAX_FRAME_BYTES, self._rows, self._names, self._senders, self._cells
        )
        error = int(numbers[socket_kernels.ERROR])
        self.has_more = not error
        if error and error != zmq.EAGAIN:
            raise zmq.ZMQError(error)
        if not count:
            return None
        senders = self._senders[: numbers[socket_kernels.SENDERS]].tolist()
        names = self._names[: senders[-1][socket_kernels.END]].tobytes()
        identities = [names[start:user] for start, user, _, _ in senders]
        principals: list[Principal | None]
        if self._admission.has_keys:
            principals = [
                self._admission.principal_of(
                    Sender(names[start:user], names[user:address].decode(), names[address:end].decode())
                )
                for start, user, address, end in senders
            ]
        else:
            principals = [EVERYTHING] * len(senders)
        keys = np.fromiter(map(key_of, identities), np.int64, len(identities))
        return FrameBlock(
            self._data[: numbers[socket_kernels.USED]], self._rows[:count], Senders(identities, keys, principals)
        )

    def _receive_one_by_one(self) -> FrameBlock | None:
        received: list[tuple[bytes, bytes, Principal | None]] = []
        self.has_more = True
        while len(received) < _FRAMES_ONE_BY_ONE:
            try:
                identity, *parts = self.socket.recv_multipart(zmq.DONTWAIT, copy=False)
            except zmq.Again:
                self.has_more = False
                break
            # A DEALER sends one part, a REQ an empty one before it; anything else is refused as a malformed frame.
            data = parts[0].bytes if len(parts) == 1 else b""
            principal = self._admission.principal(identity.bytes, parts[-1]) if parts else EVERYTHING
            received.append((identity.bytes, data, principal))
        return block_of(received) if received else None

    def send(self, identity: bytes, frame: bytes) -> None:
        """Send a reply, or let it wait, or drop it: see PeerOutbox."""
        self.outbox.send(identity, frame)

    def send_answers(self, answers: AnswerBlock) -> None:
        """Send all answers of a block as send() does."""
        if self._numbers is None:
            for identity, frame in answers.frames():
                self.outbox.send(identity, frame)
            return
        identities, blocked = answers.identities, self.outbox.blocked
        names = np.frombuffer(bytearray().join(identities), np.uint8)
        ends = np.cumsum(np.fromiter(map(len, identities), np.int64, len(identities)))
        states = np.zeros(len(identities), np.uint8)
        if blocked:
            states[:] = [identity in blocked for identity in identities]
        compiled_entry.send_messages(self._numbers, answers.data, answers.rows, names, ends, states)
        error = int(self._numbers[socket_kernels.ERROR])
        if error:
            raise zmq.ZMQError(error)
        if states.any():
            gone = states == socket_kernels.GONE
            unsent = answers.rows[(answers.rows[:, 1] > 0) & ~gone[answers.rows[:, SENDER]]]
            for identity, frame in answers._replace(rows=unsent).frames():
                self.outbox.wait(identity, frame)

    def flush(self) -> None:
        """Send what waits, as far as the connections take it now."""
        self.outbox.retry()
        self.outbox.take_gone()

    def close(self, linger_ms: int = 0) -> None:
        """Close the socket, at most so long after what is queued was sent."""
        self.socket.close(linger=linger_ms)
