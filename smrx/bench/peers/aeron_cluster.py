"""Aeron Cluster (Java) as an echo service: three members and a load through its own client (drivers/aeron_cluster)."""

from typing import Final

from smrx.bench.peers import driver_build
from smrx.bench.peers.driver_build import Say
from smrx.bench.peers.peer_calls import PeerUnavailable
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

DRIVER: Final = "aeron_cluster"
MAIN_CLASS: Final = "EchoCluster"
VERSION: Final = "1.51.0"
#: Each session has a log buffer of its own at the leader and at the client.
_MOST_SESSIONS: Final = 100
#: Of a member, in the order of the consensus module: ingress, consensus, log, catch-up, archive.
_PORTS: Final = 5


def run(shape: LoadShape, durability: Durability, timing: Timing, say: Say) -> Answered:
    """Measure one load; raises PeerUnavailable. In memory: files in memory, never synced."""
    if shape.connections > _MOST_SESSIONS:
        raise PeerUnavailable(f"each session has a log buffer of its own; at most {_MOST_SESSIONS} are measured")
    java = driver_build.java_command(DRIVER, MAIN_CLASS, say)
    ports = free_ports(_PORTS * NODES)
    addresses = [[f"127.0.0.1:{port}" for port in ports[_PORTS * n : _PORTS * (n + 1)]] for n in range(NODES)]
    cluster = "|".join(f"{number},{','.join(own)}" for number, own in enumerate(addresses))
    endpoints = ",".join(f"{number}={own[0]}" for number, own in enumerate(addresses))
    # What threads of one machine share is in memory, whatever the log is on.
    with Members(in_memory=True) as shared, Members(in_memory=durability == "memory") as members:
        for number in range(NODES):
            folders = [str(shared.directory / f"driver-{number}"), str(members.directory / str(number))]
            sync = "1" if durability == "disk" else "0"
            members.start([*java, "member", str(number), *folders, sync, cluster])
        load = [str(shape.connections), str(shape.in_flight), str(timing.warm_up_s), str(timing.seconds)]
        found = run_load([*java, "load", str(shared.directory / "client"), endpoints, *load], members, sum(timing))
    return answered(VERSION, "its own client", found, None)


PEER: Final = ReplicatedPeer("echo", ("memory", "disk"), run)
