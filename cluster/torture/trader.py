"""A client that keeps a history: every request before it leaves, every answer after it came, with the time of each.

`python -m cluster.torture.trader` is such a client as a process of its own, which may be killed at any moment; what
it had sent by then is known, and what became of it is not. Its history is told through a pipe (see streams.py). Times
are nanoseconds of time.monotonic_ns, which is one clock for all processes of a machine.
"""

import random
import signal
import time
from enum import IntEnum
from types import FrameType
from typing import Final

import click
import numpy as np
from numpy.typing import NDArray

from cluster.torture.streams import Speaker
from smrx.client import Client
from smrx.client.client_errors import ClientError
from smrx.config import Config, load
from smrx.sim import workload
from smrx.wire.codes import CommandKind
from smrx.wire.records import COMMAND

#: Requests one trader has under way at most: it waits for answers rather than fill the window of a dead cluster.
_UNDER_WAY: Final = 400
#: Between two orders of a trader, on average.
_ORDER_SECONDS: Final = 0.02
#: A session is closed and another opened after so many rounds of orders, on average.
_ROUNDS_A_SESSION: Final = 150
#: At the end, for answers that are still missing.
_DRAIN_SECONDS: Final = 60.0


class Told(IntEnum):
    """The kinds of records of a history."""

    #: first: time; second: session id; third: id of the first request; body: the commands as they are sent.
    ASKED = 1
    #: first: time; second: session id; body: the outcomes.
    ANSWERED = 2
    #: first: time. Nobody answered in time; what was under way is unknown.
    GAVE_UP = 3


class Historian:
    """A client of which everything is told. Not more than the client, it belongs to one thread."""

    def __init__(self, client: Client, speaker: Speaker) -> None:
        self.client = client
        self._speaker = speaker

    def send(self, commands: NDArray[np.void]) -> None:
        """Send commands, without waiting; raises ClientError where there is no session to be had."""
        session, last = self._session()
        self._tell_asked(session, last, commands)
        sent = self.client.submit_nowait(commands)
        if sent != len(commands):
            raise RuntimeError(f"expected room for {len(commands)} commands, found it for {sent}")

    def poll(self, timeout: float) -> int:
        """Take the answers that come within a while; how many there were. Raises ClientError."""
        outcomes = self.client.poll(timeout)
        for session in np.unique(outcomes["session_id"]).tolist():
            mine = outcomes[outcomes["session_id"] == session]
            self._speaker.say(Told.ANSWERED, time.monotonic_ns(), session, body=mine.tobytes())
        return len(outcomes)

    def drain(self, seconds: float) -> None:
        """Take every answer that is still missing; raises ClientError, or TimeoutError."""
        deadline = time.monotonic() + seconds
        while self.client.unanswered:
            if time.monotonic() > deadline:
                raise TimeoutError(f"expected answers within {seconds:g} s, found {self.client.unanswered} missing")
            self.poll(0.1)

    def close(self) -> None:
        """End the session, at the exchange too where that is safe."""
        known = self.client.last_request
        if known is not None:
            command = np.zeros(1, COMMAND)
            command["kind"] = CommandKind.CLOSE_SESSION
            self._tell_asked(*known, command)
        self.client.close()

    def _session(self) -> tuple[int, int]:
        if self.client.last_request is None:
            self.client.connect()
        known = self.client.last_request
        assert known is not None
        return known

    def _tell_asked(self, session: int, last: int, commands: NDArray[np.void]) -> None:
        """Say what is about to leave, byte for byte."""
        sent = commands.copy()
        sent["session_id"] = session
        sent["request_id"] = np.arange(last + 1, last + 1 + len(sent), dtype=np.uint64)
        self._speaker.say(Told.ASKED, time.monotonic_ns(), session, last + 1, sent.tobytes())


class Trader:
    """Orders, cancels, replaces and some nonsense of one account, until it is told to stop."""

    def __init__(self, config: Config, account: int, seed: int, patience_s: float, speaker: Speaker) -> None:
        self._config = config
        self._account = account
        self._chance = random.Random(seed)
        self._patience_s = patience_s
        self._speaker = speaker
        self._stop = False

    def stop(self) -> None:
        """Send nothing more; run() returns once everything is answered or given up."""
        self._stop = True

    def run(self) -> None:
        """Trade, session after session."""
        while not self._stop:
            client = Client(
                self._config,
                account=self._account,
                timeout=self._patience_s,
                cancel_on_disconnect=self._chance.random() < 0.5,
            )
            historian = Historian(client, self._speaker)
            try:
                self._trade(historian)
                historian.drain(_DRAIN_SECONDS)
                historian.close()
            except ClientError:
                self._speaker.say(Told.GAVE_UP, time.monotonic_ns())
            finally:
                client.close(graceful=False)

    def _trade(self, historian: Historian) -> None:
        rounds = 1 + int(self._chance.expovariate(1 / _ROUNDS_A_SESSION))
        due = time.monotonic()
        while not self._stop and rounds:
            if historian.client.unanswered < _UNDER_WAY:
                historian.send(workload.orders(self._chance, self._account, self._chance.choice((1, 1, 2, 5))))
                rounds -= 1
            # Late orders are not made up for: a client that was stopped has no flood to send.
            due = max(due, time.monotonic() - 10 * _ORDER_SECONDS) + self._chance.expovariate(1 / _ORDER_SECONDS)
            while not self._stop and (left := due - time.monotonic()) > 0:
                historian.poll(left)
                if not historian.client.unanswered:
                    time.sleep(max(0.0, due - time.monotonic()))


@click.command()
@click.option("--config", "config_path", required=True)
@click.option("--account", type=int, required=True)
@click.option("--seed", type=int, required=True)
@click.option("--patience", type=float, required=True, help="Seconds without an answer before it gives up.")
@click.option("--descriptor", type=int, required=True, help="Where the history goes.")
def main(config_path: str, account: int, seed: int, patience: float, descriptor: int) -> None:
    """Trade until SIGTERM, then wait for the answers that are missing."""
    trader = Trader(load(config_path), account, seed, patience, Speaker(descriptor))

    def on_signal(number: int, frame: FrameType | None) -> None:
        trader.stop()

    signal.signal(signal.SIGTERM, on_signal)
    trader.run()


if __name__ == "__main__":
    main()
