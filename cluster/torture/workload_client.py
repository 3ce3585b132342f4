"""Send random orders and record every request and every outcome, with the time of each.

`python -m cluster.torture.workload_client` is such a client as a process of its own. It may be killed at any moment:
its records hold what it had sent by then, and the outcome of the last requests is unknown. Records go through a pipe
(record_pipe.py). Times are nanoseconds of time.monotonic_ns, one clock for all processes of a machine.
"""

import random
import signal
import time
from enum import IntEnum
from types import FrameType
from typing import Final

import click
import numpy as np

from cluster.torture.record_pipe import RecordWriter
from smrx.client import Client
from smrx.client.client_errors import ClientError
from smrx.config import Config, load
from smrx.sim import workload
from smrx.wire.codes import CommandKind
from smrx.wire.command_list import CommandList
from smrx.wire.records import COMMAND, COMMAND_SIZE, DETAILS

#: A client sends no more while this many requests are unanswered, so that it does not fill its window.
_MAX_UNANSWERED: Final = 400
#: The mean time between two orders of a client.
_ORDER_SECONDS: Final = 0.02
#: The mean number of rounds of orders after which a session is closed and another opened.
_ROUNDS_PER_SESSION: Final = 150
#: How long to wait for missing outcomes at the end.
_DRAIN_SECONDS: Final = 60.0


class ClientRecordKind(IntEnum):
    """The kinds of records of a client."""

    #: first: time; second: session id; third: id of the first request; body: the commands as they are sent, as
    #: encode_requests() returns them.
    REQUESTS = 1
    #: first: time; second: session id; body: the outcomes.
    OUTCOMES = 2
    #: first: time. No outcome came in time; that of the unanswered requests is unknown.
    TIMED_OUT = 3


def encode_requests(commands: CommandList) -> bytes:
    """Return commands with their details as the body of a record."""
    return len(commands.records).to_bytes(4, "little") + commands.records.tobytes() + commands.details.tobytes()


def decode_requests(body: bytes) -> CommandList:
    """Return the commands in the body of a record."""
    count = int.from_bytes(body[:4], "little")
    end = 4 + count * COMMAND_SIZE
    return CommandList(np.frombuffer(body[4:end], COMMAND), np.frombuffer(body[end:], DETAILS))


class RecordingClient:
    """A client whose requests and outcomes are recorded. Like the client, it belongs to one thread."""

    def __init__(self, client: Client, writer: RecordWriter) -> None:
        self.client = client
        self._writer = writer

    def send(self, commands: CommandList) -> None:
        """Send commands without waiting for outcomes; raises ClientError if no session can be opened."""
        session, last = self._session()
        self._record_requests(session, last, commands)
        sent = self.client.submit_nowait(*commands)
        if sent != len(commands.records):
            raise RuntimeError(f"the client accepted {sent} of {len(commands.records)} commands")

    def poll(self, timeout: float) -> int:
        """Receive the outcomes that arrive within `timeout` seconds; return how many. Raises ClientError."""
        outcomes = self.client.poll(timeout)
        for session in np.unique(outcomes["session_id"]).tolist():
            of_session = outcomes[outcomes["session_id"] == session]
            self._writer.write(ClientRecordKind.OUTCOMES, time.monotonic_ns(), session, body=of_session.tobytes())
        return len(outcomes)

    def drain(self, seconds: float) -> None:
        """Receive every missing outcome; raises ClientError, or TimeoutError after `seconds`."""
        deadline = time.monotonic() + seconds
        while self.client.unanswered:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{self.client.unanswered} outcomes are missing after {seconds:g} s")
            self.poll(0.1)

    def close(self) -> None:
        """Close the client; close its session at the exchange if no request is unanswered."""
        known = self.client.last_request
        if known is not None:
            command = np.zeros(1, COMMAND)
            command["kind"] = CommandKind.CLOSE_SESSION
            self._record_requests(*known, CommandList(command))
        self.client.close()

    def _session(self) -> tuple[int, int]:
        """Return the session and its last request, after connecting if necessary."""
        if self.client.last_request is None:
            self.client.connect()
        known = self.client.last_request
        assert known is not None
        return known

    def _record_requests(self, session: int, last: int, commands: CommandList) -> None:
        """Record the commands byte for byte as they will be sent."""
        sent = commands.records.copy()
        sent["session_id"] = session
        sent["request_id"] = np.arange(last + 1, last + 1 + len(sent), dtype=np.uint64)
        body = encode_requests(CommandList(sent, commands.details))
        self._writer.write(ClientRecordKind.REQUESTS, time.monotonic_ns(), session, last + 1, body)


class WorkloadClient:
    """Sends orders, cancels, replaces and some invalid commands of one account until it is stopped."""

    def __init__(self, config: Config, account: int, seed: int, timeout_s: float, writer: RecordWriter) -> None:
        self._config = config
        self._account = account
        self._random = random.Random(seed)
        self._timeout_s = timeout_s
        self._writer = writer
        self._stop = False

    def stop(self) -> None:
        """Send nothing more; run() returns once every request is answered or has timed out."""
        self._stop = True

    def run(self) -> None:
        """Send orders, one session after another."""
        while not self._stop:
            client = Client(
                self._config,
                account=self._account,
                timeout=self._timeout_s,
                cancel_on_disconnect=self._random.random() < 0.5,
            )
            recording = RecordingClient(client, self._writer)
            try:
                self._send_orders(recording)
                recording.drain(_DRAIN_SECONDS)
                recording.close()
            except ClientError:
                self._writer.write(ClientRecordKind.TIMED_OUT, time.monotonic_ns())
            finally:
                client.close(graceful=False)

    def _send_orders(self, recording: RecordingClient) -> None:
        rounds = 1 + int(self._random.expovariate(1 / _ROUNDS_PER_SESSION))
        due = time.monotonic()
        while not self._stop and rounds:
            if recording.client.unanswered < _MAX_UNANSWERED:
                count = self._random.choice((1, 1, 2, 5))
                recording.send(workload.orders(self._random, self._account, count, time.time_ns()))
                rounds -= 1
            # After a pause, most late orders are skipped, so that the client does not send a burst.
            due = max(due, time.monotonic() - 10 * _ORDER_SECONDS) + self._random.expovariate(1 / _ORDER_SECONDS)
            while not self._stop and (left := due - time.monotonic()) > 0:
                recording.poll(left)
                if not recording.client.unanswered:
                    time.sleep(max(0.0, due - time.monotonic()))


@click.command()
@click.option("--config", "config_path", required=True)
@click.option("--account", type=int, required=True)
@click.option("--seed", type=int, required=True)
@click.option("--timeout", type=float, required=True, help="Seconds without an outcome before a request times out.")
@click.option("--descriptor", type=int, required=True, help="The pipe for the records.")
def main(config_path: str, account: int, seed: int, timeout: float, descriptor: int) -> None:
    """Send orders until SIGTERM, then wait for the missing outcomes."""
    client = WorkloadClient(load(config_path), account, seed, timeout, RecordWriter(descriptor))

    def on_signal(number: int, frame: FrameType | None) -> None:
        client.stop()

    signal.signal(signal.SIGTERM, on_signal)
    client.run()


if __name__ == "__main__":
    main()
