"""PySyncObj as it is published (Python) as an echo: three members, and the load in the process of the leader.

It has no protocol for clients. The parent starts `python -m smrx.bench.peers.stock_pysyncobj` with the addresses of the
members; the one that leads offers the load and prints the result as one line of JSON.
"""

import platform
import sys
import threading
import time
from importlib.metadata import version
from typing import Any, Final

import msgspec
import numpy as np
from pysyncobj import SyncObj, SyncObjConf, replicated

from smrx.bench.peers.driver_build import Say
from smrx.bench.peers.peer_members import LOAD_OVERHEAD_S, LoadResult, Members, parse_load
from smrx.bench.peers.replicated_peer import (
    NODES,
    Answered,
    Durability,
    LoadShape,
    ReplicatedPeer,
    Timing,
    answered,
)
from smrx.local import free_ports

_MESSAGE_SIZE: Final = 64
_TICK_S: Final = 0.05


def run(shape: LoadShape, durability: Durability, timing: Timing, say: Say) -> Answered:
    """Measure one load; raises PeerUnavailable."""
    addresses = [f"127.0.0.1:{port}" for port in free_ports(NODES)]
    under_way = shape.connections * shape.in_flight
    arguments = [str(under_way), str(timing.warm_up_s), str(timing.seconds)]
    with Members(in_memory=False) as members:
        for own in addresses:
            others = [address for address in addresses if address != own]
            members.start([sys.executable, "-m", __name__, *arguments, own, *others], is_read=True)
        found = parse_load(members.first_line(sum(timing) + LOAD_OVERHEAD_S))
    what = f"the leader's process, {under_way:,} under way"
    return answered(f"{version('pysyncobj')}, Python {platform.python_version()}", what, found, None)


PEER: Final = ReplicatedPeer("echo", ("memory",), run)


class _Echo(SyncObj):  # type: ignore[misc]  # a class of a package without types
    @replicated  # type: ignore[untyped-decorator]
    def echo(self, _message: bytes) -> None:
        """Do nothing with a message."""


class _Load:
    """Keeps a number of calls under way from the thread that runs the member."""

    def __init__(self, member: _Echo, under_way: int, timing: Timing) -> None:
        self._member = member
        self._begin_s = time.perf_counter() + timing.warm_up_s
        self.end_s = self._begin_s + timing.seconds
        self._latencies: list[float] = []
        self._message = bytes(_MESSAGE_SIZE)
        self._cpu: list[float] = []
        for _ in range(under_way):
            self._send()

    def _send(self) -> None:
        sent = time.perf_counter()

        def answer(_result: Any, error: Any) -> None:
            now = time.perf_counter()
            if error:
                raise SystemExit(f"a call failed with {error}")
            if sent >= self._begin_s:
                if not self._cpu:
                    self._cpu.append(time.process_time())
                if now < self.end_s:
                    self._latencies.append(now - sent)
            if now < self.end_s:
                self._send()

        self._member.echo(self._message, callback=answer)

    def result(self) -> LoadResult:
        """Return what was measured. The processor time is that of the leader, which offers the load."""
        if not self._latencies:
            raise SystemExit("no call was answered")
        p50, p99 = (float(found) * 1e6 for found in np.percentile(self._latencies, [50, 99]))
        seconds = self.end_s - self._begin_s
        return LoadResult(len(self._latencies), seconds, p50, p99, time.process_time() - self._cpu[0])


def main(under_way: str, warm_up_s: str, seconds: str, own: str, *others: str) -> None:
    """Run a member until standard input ends; offer the load once, if it leads."""
    ended = threading.Event()

    def watch_input() -> None:
        sys.stdin.buffer.read()
        ended.set()

    threading.Thread(target=watch_input, daemon=True).start()
    # In batches, its default, a lone call waits for the next one, up to 0.1 s.
    member = _Echo(own, list(others), SyncObjConf(autoTick=False, appendEntriesUseBatch=int(under_way) > 1))
    load: _Load | None = None
    reported = False
    while not ended.is_set():
        member.doTick(_TICK_S)
        if load is None and member.isReady() and member._isLeader():
            load = _Load(member, int(under_way), Timing(float(warm_up_s), float(seconds)))
        if load is not None and not reported and time.perf_counter() >= load.end_s:
            reported = True
            sys.stdout.buffer.write(msgspec.json.encode(load.result()) + b"\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
