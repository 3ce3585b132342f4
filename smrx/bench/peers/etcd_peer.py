"""etcd (Go): three servers, and a load of puts through its own client (drivers/etcd)."""

from typing import Final

from smrx.bench.peers import driver_build
from smrx.bench.peers.driver_build import Say
from smrx.bench.peers.peer_members import Members, run_load
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

DRIVER: Final = "etcd"
VERSION: Final = "3.7.3"


def run(shape: LoadShape, durability: Durability, timing: Timing, say: Say) -> Answered:
    """Measure one load; raises PeerUnavailable. In memory: files in memory, never synced."""
    program = str(driver_build.go_program(DRIVER, say))
    ports = free_ports(2 * NODES)
    clients = [f"http://127.0.0.1:{port}" for port in ports[:NODES]]
    peers = [f"http://127.0.0.1:{port}" for port in ports[NODES:]]
    names = [f"member{number}" for number in range(NODES)]
    cluster = ",".join(f"{name}={peer}" for name, peer in zip(names, peers, strict=True))
    with Members(in_memory=durability == "memory") as members:
        for name, client, peer in zip(names, clients, peers, strict=True):
            members.start(
                [
                    *(program, "server", "--name", name, "--data-dir", str(members.directory / name)),
                    *("--listen-client-urls", client, "--advertise-client-urls", client),
                    *("--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer),
                    *("--initial-cluster", cluster, "--initial-cluster-state", "new", "--log-level", "error"),
                    *(["--unsafe-no-fsync"] if durability == "memory" else []),
                ]
            )
        load = [str(shape.connections), str(shape.in_flight), str(timing.warm_up_s), str(timing.seconds)]
        found = run_load([program, "load", ",".join(clients), *load], members, sum(timing))
    return answered(VERSION, "its own client", found, None)


PEER: Final = ReplicatedPeer("key-value put", ("memory", "disk"), run)
