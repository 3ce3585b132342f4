"""Offer a closed loop of orders through the clients of smrx.client: what a program gets that uses the SDK.

Each client has an account of its own; each of its orders under way is a task that places a limit order, waits for the
answer, cancels it, and so on. With more commands a frame the task submits arrays of the same commands.
"""

import asyncio
import time
from typing import Final

import numpy as np

from smrx.bench import load_histogram
from smrx.bench.bench_error import BenchError
from smrx.bench.load_flow import Load
from smrx.bench.load_generator import BIN_NS, Measured, OnSlice, Shape
from smrx.client import AsyncClient, Client
from smrx.client.client_errors import ClientError
from smrx.client.session import DEFAULT_WINDOW
from smrx.config import Config
from smrx.wire.codes import CommandKind, OrderType, OutcomeStatus, Side, TimeInForce
from smrx.wire.records import COMMAND

_SECOND_NS: Final = 1_000_000_000
_SLICE_S: Final = 0.05
#: An instrument with the ticks of a real one; all orders are bids, so none trades.
_SYMBOL: Final = "BTC/USD"
_TICK, _LOT = "1", "0.01"
_PRICE, _QUANTITY = "50000", "0.25"


def prepare(config: Config) -> None:
    """List the instrument that the clients trade; the assets and accounts are those of the load."""
    with Client(config) as client:
        client.add_instrument(_SYMBOL, "BTC", "USD", _TICK, _LOT)


def measure(config: Config, load: Load, shape: Shape, *, blocking: bool, on_slice: OnSlice) -> Measured:
    """Offer the load with as many clients as the load has connections; raises BenchError."""
    recorder = _Recorder(shape, on_slice)
    try:
        if blocking:
            _run_blocking(config, int(load.accounts[0]), shape, recorder)
        else:
            asyncio.run(_run_async(config, load, shape, recorder))
    except ClientError as error:
        raise BenchError(f"an order failed: {error}") from error
    return recorder.measured()


class _Recorder:
    """Takes the time of each call; a call that began in the warm-up does not count."""

    def __init__(self, shape: Shape, on_slice: OnSlice) -> None:
        self._shape = shape
        self.on_slice = on_slice
        self._latencies: list[int] = []
        self._ended_ns: list[int] = []
        self._cpu_s = 0.0
        self.start()

    def start(self) -> None:
        """Begin the warm-up now."""
        self._start_ns = time.perf_counter_ns()
        self._measure_ns = self._start_ns + int(self._shape.warm_up_s * _SECOND_NS)
        self._stop_ns = self._measure_ns + int(self._shape.seconds * _SECOND_NS)
        self._phases: list[float] = []

    def took(self, began_ns: int) -> bool:
        """Count a call that began at a time and ended now; return whether to go on."""
        now_ns = time.perf_counter_ns()
        self._ended_ns.append(now_ns)
        self._latencies.append(now_ns - began_ns)
        return now_ns < self._stop_ns

    def slice(self) -> None:
        """Call several times a second."""
        now_ns = time.perf_counter_ns()
        if len(self._phases) < (now_ns >= self._measure_ns) + (now_ns >= self._stop_ns):
            self._phases.append(time.thread_time())
        self.on_slice((now_ns - self._start_ns) / _SECOND_NS)

    def measured(self) -> Measured:
        """Return what was measured."""
        self.slice()
        self.slice()
        ended = np.array(self._ended_ns, np.int64)
        latencies = np.array(self._latencies, np.int64)
        size = self._shape.frame_commands
        inside = (ended >= self._measure_ns) & (ended < self._stop_ns)
        counts = load_histogram.new_counts()
        load_histogram.add(counts, latencies[inside & (ended - latencies >= self._measure_ns)])
        bins = (self._stop_ns - self._start_ns) // BIN_NS + 1
        places = np.minimum((ended - self._start_ns) // BIN_NS, bins - 1)
        slowest = np.zeros(bins, np.int64)
        np.maximum.at(slowest, places, latencies)
        cpu_s = self._phases[-1] - self._phases[0]
        nothing = load_histogram.new_counts()
        return Measured(
            acknowledged=int(inside.sum()) * size,
            seconds=self._shape.seconds,
            rejected=0,
            latency=counts,
            lag=nothing,
            turns=nothing,
            answered=np.bincount(places, minlength=bins) * size,
            slowest_ns=slowest,
            cpu_s=cpu_s,
            unsent=0,
            reconnects=0,
            limited=None,
        )


async def _run_async(config: Config, load: Load, shape: Shape, recorder: _Recorder) -> None:
    window = max(DEFAULT_WINDOW, shape.in_flight * shape.frame_commands)
    clients = [AsyncClient(config, account=int(account), window=window) for account in load.accounts]
    try:
        await asyncio.gather(*(client.connect() for client in clients))
        recorder.start()
        worker = _place_and_cancel if shape.frame_commands == 1 else _submit_frames
        slices = asyncio.create_task(_slices(recorder))
        workers = [
            worker(client, int(account), shape, recorder)
            for client, account in zip(clients, load.accounts, strict=True)
            for _ in range(shape.in_flight)
        ]
        try:
            await asyncio.gather(*workers)
        finally:
            slices.cancel()
    finally:
        for client in clients:
            await client.close()


async def _slices(recorder: _Recorder) -> None:
    while True:
        recorder.slice()
        await asyncio.sleep(_SLICE_S)


async def _place_and_cancel(client: AsyncClient, account: int, shape: Shape, recorder: _Recorder) -> None:
    while True:
        began = time.perf_counter_ns()
        placed = await client.place_limit(_SYMBOL, "buy", _PRICE, _QUANTITY, account=account)
        goes_on = recorder.took(began)
        began = time.perf_counter_ns()
        await client.cancel(placed.order_id)
        if not (recorder.took(began) and goes_on):
            return


async def _submit_frames(client: AsyncClient, account: int, shape: Shape, recorder: _Recorder) -> None:
    commands = np.zeros(shape.frame_commands, COMMAND)
    commands["kind"], commands["side"], commands["order_type"] = CommandKind.PLACE, Side.BUY, OrderType.LIMIT
    commands["tif"], commands["instrument"] = TimeInForce.IOC, 1
    commands["account"], commands["price_ticks"], commands["quantity_lots"] = account, 1, 1
    while True:
        began = time.perf_counter_ns()
        outcomes = await client.submit(commands)
        if (outcomes["status"] != OutcomeStatus.ACCEPTED).any():
            raise BenchError(f"the cluster refused an order: {outcomes[0]}")
        if not recorder.took(began):
            return


def _run_blocking(config: Config, account: int, shape: Shape, recorder: _Recorder) -> None:
    with Client(config, account=account) as client:
        client.connect()
        client.cancel(client.place_limit(_SYMBOL, "buy", _PRICE, _QUANTITY).order_id)
        recorder.start()
        sliced = time.perf_counter()
        while True:
            began = time.perf_counter_ns()
            placed = client.place_limit(_SYMBOL, "buy", _PRICE, _QUANTITY)
            goes_on = recorder.took(began)
            began = time.perf_counter_ns()
            client.cancel(placed.order_id)
            if time.perf_counter() - sliced > _SLICE_S:
                sliced = time.perf_counter()
                recorder.slice()
            if not (recorder.took(began) and goes_on):
                return
