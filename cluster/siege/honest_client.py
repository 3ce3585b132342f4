"""Place and cancel one order at a time, and report how long each answer took.

`python -m cluster.siege.honest_client` is the client as a process of its own, so that no attack shares its interpreter.
An order is due at a fixed rate. Its latency runs from the time when it was due, so a stalled cluster delays every order
that is due meanwhile, and no coordinated omission hides the stall. Samples go to standard output; HonestClient starts
the process and reads them.
"""

import subprocess
import sys
import threading
import time
from enum import IntEnum
from pathlib import Path
from struct import Struct
from typing import BinaryIO, Final, Protocol

import click
import numpy as np

from cluster.siege import siege_market
from cluster.siege.gateway_trader import GatewayTrader, Traded
from cluster.siege.siege_verdict import Latencies
from cluster.torture.cluster_under_test import environment
from smrx.client import Client
from smrx.client.client_errors import ClientError
from smrx.client.results import OrderResult
from smrx.config import load

#: When the order was due and when it was answered, by time.monotonic(), one clock for all processes; a SampleKind.
_SAMPLE: Final = Struct("<ddB")
#: An order that is due this long ago is due now instead, so that a stall is not followed by a burst without end.
_MOST_LATE_S: Final = 2.0
#: How long the client waits for an answer before the order counts as failed.
_TIMEOUT_S: Final = 60.0


class SampleKind(IntEnum):
    """How an order ended."""

    ACKNOWLEDGED = 0
    FAILED = 1
    WRONG = 2


class Trader(Protocol):
    """What the honest client needs of the SDK, and of a gateway."""

    def place_limit(self, symbol: str, side: str, price: str, quantity: str) -> OrderResult | Traded:
        """Place an order. Raises ClientError."""

    def cancel(self, *, order_id: int) -> OrderResult | Traded:
        """Cancel an order. Raises ClientError."""


def trade(client: Trader, output: BinaryIO, interval_s: float) -> None:
    """Place and cancel orders until the reader closes the pipe."""
    due, number = time.monotonic(), 0
    placed: OrderResult | Traded | None = None
    while True:
        time.sleep(max(0.0, due - time.monotonic()))
        kind = SampleKind.ACKNOWLEDGED
        try:
            if placed is None:
                number += 1
                placed = _place(client, number)
                is_right = (placed.state, placed.remaining) == ("New", siege_market.quantity(number))
            else:
                cancelled, placed = client.cancel(order_id=placed.order_id), None
                is_right = (cancelled.state, cancelled.cum_lots) == ("Cancelled", 0)
            if not is_right:
                kind, placed = SampleKind.WRONG, None
        except ClientError as error:
            print(f"order {number}: {error}", file=sys.stderr, flush=True)
            kind, placed = SampleKind.FAILED, None
        now = time.monotonic()
        try:
            output.write(_SAMPLE.pack(due, now, kind))
            output.flush()
        except BrokenPipeError:
            return
        due = max(due + interval_s, now - _MOST_LATE_S)


def _place(client: Trader, number: int) -> OrderResult | Traded:
    price = siege_market.HONEST_PRICES[number % len(siege_market.HONEST_PRICES)]
    return client.place_limit(siege_market.SYMBOL, "buy", price, siege_market.quantity(number))


class HonestClient:
    """The client process and the samples of it. A context manager; leaving it ends the process."""

    def __init__(
        self,
        config_path: Path,
        log: Path,
        interval_s: float,
        account: int = siege_market.HONEST,
        gateway: str | None = None,
    ) -> None:
        """`gateway`: the address of the gateway through which it trades, instead of the SDK."""
        self._samples: list[tuple[float, float, int]] = []
        self._log = log
        with open(log, "ab") as errors:
            self._process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "cluster.siege.honest_client", "--config", str(config_path)),
                    *("--account", str(account), "--interval", str(interval_s)),
                    *(() if gateway is None else ("--gateway", gateway)),
                ],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                env=environment(),
            )
        self._thread = threading.Thread(target=self._read, name="honest-client", daemon=True)

    def __enter__(self) -> "HonestClient":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        self._thread.join()

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as pipe:
            while len(data := pipe.read(_SAMPLE.size)) == _SAMPLE.size:
                self._samples.append(_SAMPLE.unpack(data))

    @property
    def orders(self) -> int:
        """How many orders have been answered, well or not."""
        return len(self._samples)

    @property
    def failure(self) -> str | None:
        """The last line that the client logged, if its process has ended."""
        if self._process.poll() is None:
            return None
        lines = self._log.read_text(errors="replace").splitlines()
        return f"the honest client ended: {lines[-1] if lines else 'no output'}"

    def between(self, start: float, end: float) -> Latencies:
        """Return the orders that were due in a span of time.monotonic(); one without an answer yet counts until now."""
        return latencies(self._samples[:], start, end, time.monotonic())


def latencies(samples: list[tuple[float, float, int]], start: float, end: float, now: float) -> Latencies:
    """Return the figures of the samples (due, answered, kind) that waited at some time from `start` to `end`."""
    due = [sample for sample in samples if sample[0] < end and sample[1] >= start]
    taken = [1000 * (answered - since) for since, answered, kind in due if kind == SampleKind.ACKNOWLEDGED]
    last = samples[-1][1] if samples else start
    if last < end and now > last:
        # The order in flight, and those that would have been due meanwhile, wait at least this long.
        taken.append(1000 * (now - max(start, last)))
    kinds = [kind for _, _, kind in due]
    if not taken:
        return Latencies(0, 0.0, 0.0, kinds.count(SampleKind.FAILED), kinds.count(SampleKind.WRONG))
    p50, p99 = np.percentile(taken, [50, 99])
    return Latencies(
        kinds.count(SampleKind.ACKNOWLEDGED),
        round(float(p50), 2),
        round(float(p99), 2),
        kinds.count(SampleKind.FAILED),
        kinds.count(SampleKind.WRONG),
    )


@click.command()
@click.option("--config", "config_path", required=True)
@click.option("--account", type=int, required=True)
@click.option("--interval", "interval_s", type=float, required=True, help="Seconds between two orders.")
@click.option("--gateway", help="Address of a gateway, instead of the SDK.")
def main(config_path: str, account: int, interval_s: float, gateway: str | None) -> None:
    """Trade until the reader of standard output is gone."""
    if gateway is not None:
        trade(GatewayTrader(gateway, account, _TIMEOUT_S), sys.stdout.buffer, interval_s)
        return
    with Client(load(config_path), account=account, timeout=_TIMEOUT_S) as client:
        trade(client, sys.stdout.buffer, interval_s)


if __name__ == "__main__":
    main()
