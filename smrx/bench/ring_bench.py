"""Measure ways between two processes of this machine: rings in shared memory, sockets, a queue of multiprocessing.

The other process sends every message of 64 bytes back. The loops over rings and sockets are compiled and the same
(exchange_kernels.py); the queue has a loop in Python, as its users have. Called by the command line, and in the other
process as `python -m smrx.bench.ring_bench WAY PLACE`.
"""

import multiprocessing
import multiprocessing.queues
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from smrx.bench import exchange_kernels, machine_conditions
from smrx.bench.bench_error import BenchError
from smrx.bench.exchange_kernels import MESSAGE_BYTES, RING, SOCKET, SPINNING_RING
from smrx.rings import ring_end, ring_kernels
from smrx.rings.ring_end import RingEnd

#: Name of a way -> its number; the queue has none.
WAYS: Final = {
    "ring, spinning": SPINNING_RING,
    "ring, sleeping": RING,
    "Unix socket": SOCKET,
    "TCP": SOCKET,
    "multiprocessing.Queue": None,
}
#: Messages under way for the throughput.
WINDOW: Final = 16
_BUFFER_WORDS: Final = 1 << 15
_CONNECT_S: Final = 60.0
#: A queue takes so much longer that it gets fewer messages.
_QUEUE_SHARE: Final = 20


def run(messages: int = 100_000, *, progress: Callable[[str, float], None] | None = None) -> dict[str, Any]:
    """Return `ways`: for each the round trip of a lone message and the throughput, and `conditions`. Raises BenchError.

    Keys of a way: name, lone_us (p50, p99), per_second (with WINDOW under way), cpu_ns (of this process, a message,
    with WINDOW under way).
    """
    if not ring_kernels.is_available():
        raise BenchError("rings need compiled code; unset NUMBA_DISABLE_JIT")
    machine = machine_conditions.machine()
    rows = []
    for number, (name, way) in enumerate(WAYS.items()):
        if progress is not None:
            progress("ways", number / len(WAYS))
        rows.append(_measure_queue(messages // _QUEUE_SHARE) if way is None else _measure(name, way, messages))
    return {
        "ways": rows,
        "conditions": machine | {"messages": messages, "message_bytes": MESSAGE_BYTES, "window": WINDOW},
    }


def _row(name: str, lone_ns: NDArray[Any], seconds: float, cpu_s: float, messages: int) -> dict[str, Any]:
    p50, p99 = (round(float(found) / 1000, 2) for found in np.percentile(lone_ns, [50, 99]))
    return {
        "name": name,
        "lone_us": {"p50": p50, "p99": p99},
        "per_second": round(messages / seconds),
        "cpu_ns": round(cpu_s / messages * 1e9),
    }


class _Side:
    """What the compiled loops need of one process."""

    def __init__(self, way: int, link: RingEnd | socket.socket) -> None:
        self.link = link
        self.way = np.zeros(exchange_kernels.WAY_WORDS, np.int64)
        self.buffer = np.zeros(_BUFFER_WORDS, np.int64)
        self.way[exchange_kernels.WAY] = way
        if isinstance(link, RingEnd):
            self.way[exchange_kernels.BELL] = link.bell
            self.inbound, self.outbound = link.words
        else:
            if link.family == socket.AF_INET:
                link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.way[exchange_kernels.DESCRIPTOR] = link.fileno()
            self.inbound = self.outbound = np.zeros(ring_kernels.WORDS, np.int64)

    def drive(self, messages: int, window: int) -> tuple[float, NDArray[np.int64]]:
        latencies = np.zeros(messages, np.int64)
        taken = exchange_kernels.drive(self.way, self.inbound, self.outbound, self.buffer, messages, window, latencies)
        if taken < 0:
            raise BenchError("the other process ended, or sent something else back")
        return taken / 1e9, latencies


def _measure(name: str, way: int, messages: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="smrx-ring-") as directory:
        is_tcp = name == "TCP"
        with socket.socket(socket.AF_INET if is_tcp else socket.AF_UNIX) as listener:
            listener.bind(("127.0.0.1", 0) if is_tcp else os.path.join(directory, "socket"))
            listener.listen()
            address = listener.getsockname()
            place = f"127.0.0.1:{address[1]}" if is_tcp else str(address)
            child = subprocess.Popen([sys.executable, "-m", __name__, str(way), place])
            listener.settimeout(_CONNECT_S)
            try:
                link, _ = listener.accept()
            except TimeoutError:
                child.kill()
                child.wait()
                raise BenchError(f"the other process did not connect within {_CONNECT_S:g} s") from None
        end = link if way == SOCKET else ring_end.offer(link)
        try:
            link.setblocking(way == SOCKET)
            side = _Side(way, end)
            side.drive(max(1, messages // 10), 1)
            _, lone = side.drive(messages, 1)
            cpu_s = time.process_time()
            seconds, _ = side.drive(messages, WINDOW)
            cpu_s = time.process_time() - cpu_s
            exchange_kernels.stop(side.way, side.outbound, side.buffer)
            child.wait(_CONNECT_S)
        finally:
            child.kill()
            child.wait()
            end.close()
    return _row(name, lone, seconds, cpu_s, messages)


def _echo_queue(requests: "multiprocessing.Queue[bytes]", answers: "multiprocessing.Queue[bytes]") -> None:
    while message := requests.get():
        answers.put(message)


def _measure_queue(messages: int) -> dict[str, Any]:
    messages = max(messages, 1)
    context = multiprocessing.get_context("spawn")
    requests: multiprocessing.queues.Queue[bytes] = context.Queue()
    answers: multiprocessing.queues.Queue[bytes] = context.Queue()
    child = context.Process(target=_echo_queue, args=(requests, answers))
    child.start()
    try:
        message = bytes(range(MESSAGE_BYTES))

        def lone() -> int:
            begin = time.perf_counter_ns()
            requests.put(message)
            answers.get(timeout=_CONNECT_S)
            return time.perf_counter_ns() - begin

        for _ in range(min(messages, 100)):
            lone()
        latencies = np.array([lone() for _ in range(messages)])
        cpu_s, begin = time.process_time(), time.perf_counter()
        sent = min(WINDOW, messages)
        for _ in range(sent):
            requests.put(message)
        for _ in range(messages):
            answers.get(timeout=_CONNECT_S)
            if sent < messages:
                sent += 1
                requests.put(message)
        seconds, cpu_s = time.perf_counter() - begin, time.process_time() - cpu_s
        requests.put(b"")
        child.join(_CONNECT_S)
    finally:
        child.kill()
        child.join()
    return _row("multiprocessing.Queue", latencies, seconds, cpu_s, messages)


def main(way: str, place: str) -> None:
    """Send back what arrives; the other process."""
    number = int(way)
    if number == SOCKET:
        host, _, port = place.rpartition(":")
        family, address = (socket.AF_INET, (host, int(port))) if host else (socket.AF_UNIX, place)
        plain = socket.socket(family)
        plain.connect(address)
        link: RingEnd | socket.socket = plain
    else:
        link = ring_end.connect(place, _CONNECT_S)
    side = _Side(number, link)
    exchange_kernels.echo(side.way, side.inbound, side.outbound, side.buffer)
    link.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
