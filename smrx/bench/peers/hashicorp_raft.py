"""hashicorp/raft (Go) as an echo service: three members of drivers/hashicorp_raft, and the load generator of smrx.

Its members speak the packets of smrx's native protocol, so the load and its checks are the same as for smrx.
"""

import socket
import time
from typing import Final

from smrx.bench import load_flow, load_histogram
from smrx.bench.bench_error import BenchError
from smrx.bench.load_generator import Shape, measure
from smrx.bench.load_protocols import Soup
from smrx.bench.peers import driver_build
from smrx.bench.peers.driver_build import Say
from smrx.bench.peers.peer_calls import PeerUnavailable
from smrx.bench.peers.peer_members import Members
from smrx.bench.peers.replicated_peer import NODES, Answered, Durability, LoadShape, ReplicatedPeer, Timing
from smrx.local import free_ports

DRIVER: Final = "hashicorp_raft"
VERSION: Final = "1.7.3"
_HOST: Final = "127.0.0.1"
_ELECTION_S: Final = 30.0
_PROBE_S: Final = 0.2


def run(shape: LoadShape, durability: Durability, timing: Timing, say: Say) -> Answered:
    """Measure one load; raises PeerUnavailable."""
    program = driver_build.go_program(DRIVER, say)
    ports = free_ports(2 * NODES)
    clients = [f"{_HOST}:{port}" for port in ports[:NODES]]
    raft = ",".join(f"{_HOST}:{port}" for port in ports[NODES:])
    with Members(in_memory=False) as members:
        for number, address in enumerate(clients):
            directory = members.directory / str(number)
            directory.mkdir()
            kept = str(directory) if durability == "disk" else ""
            members.start([str(program), str(number), kept, address, raft])
        leader = _leader(clients, members)
        samples: list[float] = []

        def sample(elapsed_s: float) -> None:
            if elapsed_s >= timing.warm_up_s + len(samples) * timing.seconds and len(samples) < 2:
                samples.append(members.cpu_seconds())

        try:
            found = measure(
                load_flow.of_mix("steady", shape.connections),
                Shape(in_flight=shape.in_flight, seconds=timing.seconds, warm_up_s=timing.warm_up_s),
                lambda: f"tcp://{leader}",
                Soup(),
                on_slice=sample,
            )
        except BenchError as error:
            members.check()
            raise PeerUnavailable(str(error)) from None
    if not found.acknowledged or found.reconnects:
        raise PeerUnavailable(f"{found.acknowledged} requests were answered, with {found.reconnects} reconnections")
    latency = load_histogram.in_microseconds(found.latency)
    return Answered(
        VERSION,
        "smrx",
        found.acknowledged,
        found.seconds,
        latency["p50"] or 0.0,
        latency["p99"] or 0.0,
        samples[1] - samples[0] if len(samples) == 2 else None,
        found.cpu_s,
    )


def _leader(addresses: list[str], members: Members) -> str:
    """Return the address of the member that accepts a login: only the leader does."""
    deadline = time.monotonic() + _ELECTION_S
    while time.monotonic() < deadline:
        members.check()
        for address in addresses:
            host, _, port = address.rpartition(":")
            try:
                with socket.create_connection((host, int(port)), _PROBE_S) as link:
                    Soup().greet(link)
                    Soup().wait_ready(link)
                    return address
            except (OSError, BenchError):
                continue
    raise PeerUnavailable(f"no member was elected within {_ELECTION_S:g} s")


PEER: Final = ReplicatedPeer("echo", ("memory", "disk"), run)
