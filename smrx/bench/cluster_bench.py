"""Measure how fast a cluster acknowledges commands: real nodes on loopback, and a load generator on raw sockets.

There are two separate phases: throughput with several large frames in flight, then latency with one order in flight.
Prints nothing; the command line does.
"""

import os
import platform
import tempfile
import time
from collections.abc import Callable
from typing import Any, Final, Literal

import numpy as np
import zmq
from hdrh.histogram import HdrHistogram

from smrx.bench.bench_error import BenchError
from smrx.bench.bench_market import Commands, SessionNumbering, market_commands, open_session
from smrx.bench.machine_conditions import processor
from smrx.bench.steady_flow import BLOCK, SteadyBlocks
from smrx.config import Config
from smrx.local import LocalCluster
from smrx.wire import frames, tcp_address
from smrx.wire.codes import OutcomeStatus
from smrx.wire.command_list import CommandList, join
from smrx.wire.frames import FrameKind

_SEED: Final = 11
_DEPOSIT_UNITS: Final = 1 << 60
_ANSWER_TIMEOUT_MS: Final = 10_000


def run(
    *,
    nodes: int = 3,
    durability: Literal["memory", "disk"] = "memory",
    seconds: float = 10.0,
    frame_commands: int = 2000,
    window_frames: int = 8,
    progress: Callable[[str, float], None] | None = None,
) -> dict[str, Any]:
    """Run for half of `seconds` with full load and for half with one order in flight; return the figures.

    Keys: acknowledged_per_second, latency_us (p50, p99, p999, max of one order in flight), cpu_seconds (by node id, of
    the throughput phase), refused, state_hash (equal on all nodes), conditions. Raises BenchError.
    """
    with (
        tempfile.TemporaryDirectory(prefix="smrx-bench-") as directory,
        LocalCluster(directory, nodes, durability=durability) as cluster,
    ):
        leader = cluster.wait_leader()
        load = _Load(cluster.config, leader, frame_commands)
        try:
            before = {i: status.cpu_seconds for i, status in cluster.statuses().items()}
            acknowledged, elapsed = load.throughput(seconds / 2, window_frames, progress)
            after = {i: status.cpu_seconds for i, status in cluster.statuses().items()}
            histogram = load.latency(seconds / 2, progress)
        finally:
            load.close()
        state_hash = common_hash(cluster)
    return {
        "acknowledged_per_second": round(acknowledged / elapsed),
        "acknowledged": acknowledged,
        "refused": load.refused,
        "latency_us": {
            name: histogram.get_value_at_percentile(percentile)
            for name, percentile in (("p50", 50), ("p99", 99), ("p999", 99.9), ("max", 100))
        },
        "cpu_seconds": {str(i): round(after[i] - before[i], 3) for i in sorted(after)},
        "state_hash": f"{state_hash:016x}",
        "conditions": {
            "nodes": nodes,
            "durability": durability,
            "seconds_throughput": round(elapsed, 3),
            "orders_latency": histogram.get_total_count(),
            "frame_commands": load.frame_commands,
            "window_frames": window_frames,
            "mix": "60% add, 30% cancel, 10% marketable",
            "engine": "state hash, ledger and events on",
            "cpu_count": os.cpu_count(),
            "machine": platform.machine(),
            "processor": processor(),
            "python": platform.python_version(),
            "network": "loopback, load generator on the same machine",
        },
    }


class _Load:
    """One session of the venue's account that sends commands to the leader and counts the outcomes."""

    def __init__(self, config: Config, leader: int, frame_commands: int) -> None:
        self.refused = 0
        self.frame_commands = max(BLOCK, frame_commands // BLOCK * BLOCK)
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._socket = self._context.socket(zmq.DEALER)
        self._socket.linger = 0
        tcp_address.connect(self._socket, config.node(leader).orders_address)
        self._numbering = SessionNumbering()
        self._frames_made = 0
        # Each block cancels the deep orders of the block before it.
        self._blocks = SteadyBlocks(self.frame_commands // BLOCK, _SEED, lag_blocks=1)
        self._exchange(join([CommandList(open_session()), market_commands(2, _DEPOSIT_UNITS)]))
        # The first block has none before it, so the orders that it cancels are placed here.
        self._exchange(CommandList(self._blocks.before()))

    def throughput(
        self, seconds: float, window: int, progress: Callable[[str, float], None] | None
    ) -> tuple[int, float]:
        """Keep `window` frames in flight; return (commands acknowledged, seconds)."""
        acknowledged = 0
        started = time.perf_counter()
        in_flight = 0
        while (elapsed := time.perf_counter() - started) < seconds or in_flight:
            while in_flight < window and elapsed < seconds:
                self._send(CommandList(self._next_frame()))
                in_flight += 1
            acknowledged += self._receive()
            in_flight -= 1
            if progress is not None:
                progress("throughput", min(1.0, elapsed / seconds))
        return acknowledged, time.perf_counter() - started

    def latency(self, seconds: float, progress: Callable[[str, float], None] | None) -> HdrHistogram:
        """Send one order, wait for its outcome, send the next; return the latencies in microseconds."""
        histogram = HdrHistogram(1, 60_000_000, 3)
        frame = self._next_frame()
        started = time.perf_counter()
        at = 0
        while (elapsed := time.perf_counter() - started) < seconds:
            if at == len(frame):
                frame, at = self._next_frame(), 0
            order = self._encoded(CommandList(frame[at : at + 1]))
            sent = time.perf_counter_ns()
            self._socket.send(order)
            answer = self._answer()
            histogram.record_value(max(1, (time.perf_counter_ns() - sent) // 1000))
            self._count(answer)
            at += 1
            if progress is not None:
                progress("latency", min(1.0, elapsed / seconds))
        return histogram

    def close(self) -> None:
        self._socket.close()
        self._context.term()

    def _next_frame(self) -> Commands:
        """Return the next blocks of the flow."""
        frame = self._blocks.piece(self._frames_made)
        self._frames_made += 1
        return frame

    def _send(self, commands: CommandList) -> None:
        self._socket.send(self._encoded(commands))

    def _encoded(self, commands: CommandList) -> bytes:
        # Numbered when sent, not when made: request ids must be in the order of sending, without gaps.
        self._numbering.number(commands.records)
        return frames.encode_commands(commands)

    def _receive(self) -> int:
        return self._count(self._answer())

    def _answer(self) -> bytes:
        if not self._socket.poll(_ANSWER_TIMEOUT_MS):
            raise BenchError(f"the leader did not answer within {_ANSWER_TIMEOUT_MS // 1000} s")
        return self._socket.recv()

    def _count(self, answer: bytes) -> int:
        frame = frames.decode(answer)
        if frame.kind is not FrameKind.OUTCOMES:
            raise BenchError(
                f"the node answered {frame.kind.name} instead of OUTCOMES: the leader changed or refused commands; "
                "run the benchmark again"
            )
        self.refused += int(np.count_nonzero(frames.records(frame)["status"] != OutcomeStatus.ACCEPTED))
        return frame.count

    def _exchange(self, commands: CommandList) -> None:
        self._send(commands)
        self._receive()
        if self.refused:
            raise BenchError(f"the cluster refused {self.refused} commands of the market's setup")


def common_hash(cluster: LocalCluster) -> int:
    """Wait until all nodes are at one sequence; return their state hash. Raises BenchError if hashes differ."""

    def caught_up() -> set[tuple[int, int]] | None:
        found = {(status.sequence, status.state_hash) for status in cluster.statuses().values()}
        return found if len({sequence for sequence, _ in found}) == 1 else None

    hashes = {state_hash for _, state_hash in cluster.wait_for(caught_up, 10, "every node at one sequence")}
    if len(hashes) != 1:
        raise BenchError(f"the nodes have different state hashes at one sequence: {sorted(hashes)}")
    return hashes.pop()
