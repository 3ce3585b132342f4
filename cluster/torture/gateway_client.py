"""Send random orders through gateways, and record every request and every outcome.

`python -m cluster.torture.gateway_client` is such a client as a process of its own. Its session goes on through
another gateway when one dies or is silent: what has no answer is sent again with the same ids.
"""

import random
import signal
import socket
import time
from collections import deque
from types import FrameType
from typing import Final

import click
import numpy as np

from cluster.torture.record_pipe import RecordWriter
from cluster.torture.workload_client import ClientRecordKind, encode_requests
from smrx.config import load
from smrx.sim import workload
from smrx.wire import soup_packets
from smrx.wire.codes import CommandKind, OutcomeStatus
from smrx.wire.command_list import CommandList, join
from smrx.wire.records import COMMAND, OUTCOME, OUTCOME_SIZE, SESSION_COMMAND
from smrx.wire.soup_packets import Login, PacketReader, PacketType

#: Unanswered requests of a client, and so the answers that its session keeps.
_WINDOW: Final = 256
_ORDER_SECONDS: Final = 0.02
_ROUNDS_PER_SESSION: Final = 150
#: Silence of a gateway with requests under way, after which the client goes to the other one.
_SILENCE_SECONDS: Final = 3.0
_RETRY_SECONDS: Final = 0.05
#: How long to wait for missing outcomes at the end.
_DRAIN_SECONDS: Final = 60.0


class GatewayLost(Exception):
    """The connection has ended, or the gateway is silent."""


class GatewayClient:
    """One client of one account; its sessions follow each other."""

    def __init__(self, addresses: list[tuple[str, int]], account: int, seed: int, writer: RecordWriter) -> None:
        self._addresses = addresses
        self._account = account
        self._random = random.Random(seed)
        self._writer = writer
        self._stop = False
        self._next_gateway = self._random.randrange(len(addresses))

    def stop(self) -> None:
        """Send no new orders; run() returns once every request is answered, or some time later."""
        self._stop = True

    def run(self) -> None:
        """Send orders, one session after another."""
        while not self._stop:
            self._session = self._random.getrandbits(31) + 1
            self._answered = 0
            self._unanswered: deque[CommandList] = deque()
            self._rounds = 1 + int(self._random.expovariate(1 / _ROUNDS_PER_SESSION))
            deadline = float("inf")
            while (self._rounds and not self._stop) or self._unanswered:
                if self._stop:
                    deadline = min(deadline, time.monotonic() + _DRAIN_SECONDS)
                if time.monotonic() > deadline:
                    self._writer.write(ClientRecordKind.TIMED_OUT, time.monotonic_ns())
                    return
                try:
                    self._use_gateway()
                except (OSError, GatewayLost):
                    time.sleep(_RETRY_SECONDS)

    def _use_gateway(self) -> None:
        """Go on over a new connection to the next gateway; raises OSError or GatewayLost when it ends."""
        address = self._addresses[self._next_gateway]
        self._next_gateway = (self._next_gateway + 1) % len(self._addresses)
        with socket.create_connection(address, _SILENCE_SECONDS) as connection:
            self._connection, self._reader = connection, PacketReader()
            connection.sendall(soup_packets.encode_login(Login(username="client")))
            self._is_open = False
            self._heard_at = due = time.monotonic()
            while (self._rounds and not self._stop) or self._unanswered:
                now = time.monotonic()
                if now - self._heard_at > _SILENCE_SECONDS:
                    raise GatewayLost
                if (
                    self._is_open
                    and self._rounds
                    and not self._stop
                    and now >= due
                    and len(self._unanswered) < _WINDOW - 5
                ):
                    self._send_orders()
                    self._rounds -= 1
                    due = max(due, now - 10 * _ORDER_SECONDS) + self._random.expovariate(1 / _ORDER_SECONDS)
                connection.settimeout(max(0.001, min(0.1, due - now)))
                try:
                    data = connection.recv(1 << 16)
                except TimeoutError:
                    continue
                if not data:
                    raise GatewayLost
                for packet in self._reader.feed(data):
                    self._handle(packet.kind, packet.payload)

    def _send_orders(self) -> None:
        commands = workload.orders(self._random, self._account, self._random.choice((1, 1, 2, 5)), time.time_ns())
        first = self._answered + len(self._unanswered) + 1
        records = commands.records.copy()
        records["session_id"] = self._session
        records["request_id"] = np.arange(first, first + len(records), dtype=np.uint64)
        commands = CommandList(records, commands.details)
        body = encode_requests(commands)
        self._writer.write(ClientRecordKind.REQUESTS, time.monotonic_ns(), self._session, first, body)
        self._unanswered.extend(commands.part(at, at + 1) for at in range(len(records)))
        self._connection.sendall(soup_packets.encode_commands(*commands))

    def _handle(self, kind: int, payload: bytes) -> None:
        self._heard_at = time.monotonic()
        if kind == PacketType.LOGIN_ACCEPTED:
            command = np.zeros(1, SESSION_COMMAND)
            command["kind"], command["session_id"] = CommandKind.OPEN_SESSION, self._session
            command["account"], command["answers"] = self._account, _WINDOW
            self._connection.sendall(soup_packets.encode_commands(command.view(COMMAND)))
        elif kind == PacketType.SEQUENCED and len(payload) == OUTCOME_SIZE:
            self._on_outcome(payload)
        elif kind != PacketType.SERVER_HEARTBEAT:
            raise GatewayLost

    def _on_outcome(self, payload: bytes) -> None:
        outcome = np.frombuffer(payload, OUTCOME)[0]
        request = int(outcome["request_id"])
        if not request:
            if outcome["status"] == OutcomeStatus.REJECTED:
                raise GatewayLost
            self._is_open = True
            if self._unanswered:
                self._connection.sendall(soup_packets.encode_commands(*join(list(self._unanswered))))
            return
        self._writer.write(ClientRecordKind.OUTCOMES, time.monotonic_ns(), int(outcome["session_id"]), body=payload)
        if int(outcome["session_id"]) != self._session or request != self._answered + 1 or not self._unanswered:
            raise RuntimeError(
                f"expected the outcome of request {self._answered + 1} of session {self._session}, found that of "
                f"request {request} of session {int(outcome['session_id'])}"
            )
        self._unanswered.popleft()
        self._answered = request


@click.command()
@click.option("--config", "config_path", required=True)
@click.option("--account", type=int, required=True)
@click.option("--seed", type=int, required=True)
@click.option("--descriptor", type=int, required=True, help="The pipe for the records.")
def main(config_path: str, account: int, seed: int, descriptor: int) -> None:
    """Send orders until SIGTERM, then wait for the missing outcomes."""
    gateways = load(config_path).gateways
    addresses = [(gateway.bare_host, gateway.port) for gateway in gateways]
    client = GatewayClient(addresses, account, seed, RecordWriter(descriptor))

    def on_signal(number: int, frame: FrameType | None) -> None:
        client.stop()

    signal.signal(signal.SIGTERM, on_signal)
    client.run()


if __name__ == "__main__":
    main()
