"""How fast a whole cluster acknowledges: real nodes on loopback, a load generator that speaks the wire protocol itself.

Two phases, never mixed: throughput with several frames of many commands under way, then latency with one order under
way. Prints nothing; the command line does. Figures are of the machine named in them.
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
from numpy.typing import NDArray

from smrx.bench.machine_conditions import processor
from smrx.config import Config
from smrx.local import LocalCluster
from smrx.wire import frames
from smrx.wire.codes import (
    CommandKind,
    OrderType,
    OutcomeStatus,
    Side,
    Stp,
    TimeInForce,
)
from smrx.wire.frames import FrameKind
from smrx.wire.records import COMMAND, INSTRUMENT_COMMAND, pack_symbol

Commands = NDArray[np.void]

_SESSION: Final = 0x5EED
_MAKER: Final = 1
_TAKER: Final = 2
_MID_TICKS: Final = 100_000
#: One block of the flow: 6 orders, 3 cancels and 1 order that takes, as on a busy book; it leaves the book as it was.
_BLOCK: Final = 10
_ANSWER_MS: Final = 10_000


class BenchError(Exception):
    """The cluster did not answer as it must; a figure would mean nothing."""


def run(
    *,
    nodes: int = 3,
    durability: Literal["memory", "disk"] = "memory",
    seconds: float = 10.0,
    frame_commands: int = 2000,
    window_frames: int = 8,
    progress: Callable[[str, float], None] | None = None,
) -> dict[str, Any]:
    """Return the figures of one run: half the time for throughput, half for latency.

    Keys: acknowledged_per_second, latency_us (p50, p99, p999 of one order in flight), cpu_seconds (by node id, of the
    throughput phase), refused, state_hash (equal on all nodes), conditions.
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
        state_hash = _common_hash(cluster)
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
    """One session of the venue's account that feeds the leader and counts what comes back."""

    def __init__(self, config: Config, leader: int, frame_commands: int) -> None:
        self.refused = 0
        self.frame_commands = max(_BLOCK, frame_commands // _BLOCK * _BLOCK)
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._socket = self._context.socket(zmq.DEALER)
        self._socket.linger = 0
        self._socket.connect(config.node(leader).orders_address)
        self._request = 0
        self._blocks = 0
        self._template = _blocks(self.frame_commands // _BLOCK)
        self._exchange(_setup())
        # The deep orders of a block before the first, so that the first block's cancels find theirs.
        ahead = self._template[3:6].copy()
        ahead["client_order_id"] -= np.uint64(_BLOCK)
        self._exchange(ahead)

    def throughput(
        self, seconds: float, window: int, progress: Callable[[str, float], None] | None
    ) -> tuple[int, float]:
        """Keep `window` frames under way; return (commands acknowledged, seconds)."""
        acknowledged = 0
        started = time.perf_counter()
        under_way = 0
        while (elapsed := time.perf_counter() - started) < seconds or under_way:
            while under_way < window and elapsed < seconds:
                self._send(self._next_frame())
                under_way += 1
            acknowledged += self._receive()
            under_way -= 1
            if progress is not None:
                progress("throughput", min(1.0, elapsed / seconds))
        return acknowledged, time.perf_counter() - started

    def latency(self, seconds: float, progress: Callable[[str, float], None] | None) -> HdrHistogram:
        """Send one order, wait for its outcome, send the next; microseconds from 1 to 60 s, 3 digits."""
        histogram = HdrHistogram(1, 60_000_000, 3)
        frame = self._next_frame()
        started = time.perf_counter()
        at = 0
        while (elapsed := time.perf_counter() - started) < seconds:
            if at == len(frame):
                frame, at = self._next_frame(), 0
            order = self._encoded(frame[at : at + 1])
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
        """The next blocks of the flow; client order ids go on where the last frame ended."""
        frame = self._template.copy()
        named = frame["client_order_id"] > 0
        frame["client_order_id"][named] += np.uint64(self._blocks * _BLOCK)
        self._blocks += len(frame) // _BLOCK
        return frame

    def _send(self, commands: Commands) -> None:
        self._socket.send(self._encoded(commands))

    def _encoded(self, commands: Commands) -> bytes:
        # Request ids are given when a frame leaves, not when it is made: the session's must have no hole.
        opens = commands["kind"] == CommandKind.OPEN_SESSION
        commands["session_id"] = _SESSION
        commands["request_id"] = np.where(opens, 0, self._request + np.cumsum(~opens))
        self._request += int(np.count_nonzero(~opens))
        return frames.encode_commands(commands)

    def _receive(self) -> int:
        return self._count(self._answer())

    def _answer(self) -> bytes:
        if not self._socket.poll(_ANSWER_MS):
            raise BenchError(f"expected an answer within {_ANSWER_MS // 1000} s, found none")
        return self._socket.recv()

    def _count(self, answer: bytes) -> int:
        frame = frames.decode(answer)
        if frame.kind is not FrameKind.OUTCOMES:
            raise BenchError(f"expected OUTCOMES, found {frame.kind.name}: the leader changed or refused; run it again")
        self.refused += int(np.count_nonzero(frames.records(frame)["status"] != OutcomeStatus.ACCEPTED))
        return frame.count

    def _exchange(self, commands: Commands) -> None:
        self._send(commands)
        self._receive()
        if self.refused:
            raise BenchError(f"expected the market to be set up, found {self.refused} refused commands")


def _setup() -> Commands:
    rows = np.zeros(10, COMMAND)
    rows["kind"] = [
        CommandKind.OPEN_SESSION,
        *[CommandKind.ADD_ASSET] * 2,
        CommandKind.ADD_INSTRUMENT,
        *[CommandKind.OPEN_ACCOUNT] * 2,
        *[CommandKind.DEPOSIT] * 4,
    ]
    rows["instrument"] = [0, 1, 2, 1, 0, 0, 1, 2, 1, 2]
    rows["client_order_id"][1:3] = [pack_symbol("BTC"), pack_symbol("USD")]
    rows["quantity_lots"][1:3] = [8, 2]
    rows["account"][4:] = [_MAKER, _TAKER, _MAKER, _MAKER, _TAKER, _TAKER]
    rows["order_id"][6:] = [1, 2, 3, 4]
    rows["quantity_lots"][6:] = 1 << 60
    instrument = rows[3:4].view(INSTRUMENT_COMMAND)
    instrument["symbol"] = pack_symbol("BTC-USD")
    instrument["base_asset"], instrument["quote_asset"] = 1, 2
    instrument["lot_units"], instrument["scale_units"] = 1, 1
    instrument["max_price_ticks"], instrument["max_quantity_lots"] = 1 << 24, 1 << 30
    return rows


def _blocks(count: int) -> Commands:
    """`count` blocks: three orders near the touch, three deep, three cancels of the last block's deep ones, one take.

    Client order ids count from 1; the caller shifts them by block. The take is as large as the near orders it meets.
    """
    rng = np.random.default_rng(11)
    rows = np.zeros((count, _BLOCK), COMMAND)
    places = [0, 1, 2, 3, 4, 5, 9]
    rows["kind"] = CommandKind.CANCEL
    rows["kind"][:, places] = CommandKind.PLACE
    rows["account"] = _MAKER
    # The order of a block is: 3 near, 3 deep, 3 cancels, 1 take.
    side = np.where(np.arange(count) % 2 == 0, Side.BUY, Side.SELL).astype(np.uint8)
    sign = np.where(side == Side.BUY, -1, 1)[:, None]
    offsets = np.concatenate([rng.integers(1, 10, (count, 3)), rng.integers(20, 500, (count, 3))], axis=1)
    rows["side"][:, :6] = side[:, None]
    rows["price_ticks"][:, :6] = _MID_TICKS + sign * offsets
    rows["quantity_lots"][:, :6] = rng.integers(1, 100, (count, 6))
    rows["side"][:, 9] = 3 - side
    rows["price_ticks"][:, 9] = _MID_TICKS + sign[:, 0] * 15
    rows["quantity_lots"][:, 9] = rows["quantity_lots"][:, :3].sum(axis=1)
    rows["account"][:, 9] = _TAKER
    for name, value in (("order_type", OrderType.LIMIT), ("tif", TimeInForce.GTC), ("stp", Stp.CANCEL_NEWEST)):
        rows[name][:, places] = value
    rows["tif"][:, 9] = TimeInForce.IOC
    rows["instrument"][:, places] = 1
    ids = np.arange(count, dtype=np.uint64)[:, None] * np.uint64(_BLOCK) + np.arange(1, 7, dtype=np.uint64)
    rows["client_order_id"][:, :6] = ids + np.uint64(_BLOCK)
    rows["client_order_id"][:, 6:9] = ids[:, 3:]
    return rows.reshape(-1)


def _common_hash(cluster: LocalCluster) -> int:
    """The state hash of all nodes, once they stand at one sequence; raises BenchError if they do not agree."""

    def level() -> set[tuple[int, int]] | None:
        at = {(status.sequence, status.state_hash) for status in cluster.statuses().values()}
        return at if len({sequence for sequence, _ in at}) == 1 else None

    hashes = {state_hash for _, state_hash in cluster.wait_for(level, 10, "every node at one sequence")}
    if len(hashes) != 1:
        raise BenchError(f"expected one state hash on all nodes, found {sorted(hashes)}")
    return hashes.pop()
