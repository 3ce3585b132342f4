"""Measure smrx and other replicated systems under the same loads, in one run on this machine.

Of each load smrx is measured first, then each peer: three members in processes of their own, and the load from another
process. What a system does with a request differs and is named: an exchange, or an echo that has no state. A peer that
cannot be measured gets a row with the reason. Figures of different runs or machines say nothing about each other, so
only ratios of one run are meant to be quoted. Called by the command line.
"""

from collections.abc import Sequence
from typing import Any, Final

from smrx.bench import load_bench, machine_conditions
from smrx.bench.bench_error import BenchError
from smrx.bench.load_bench import ProtocolName
from smrx.bench.load_generator import Shape
from smrx.bench.peers import aeron_cluster, etcd_peer, hashicorp_raft, stock_pysyncobj
from smrx.bench.peers.driver_build import Say
from smrx.bench.peers.peer_calls import PeerUnavailable
from smrx.bench.peers.replicated_peer import NODES, Answered, Durability, LoadShape, ReplicatedPeer, Timing

#: Name of a peer -> how it is measured.
PEERS: Final = {
    "hashicorp/raft": hashicorp_raft.PEER,
    "etcd": etcd_peer.PEER,
    "Aeron Cluster": aeron_cluster.PEER,
    "PySyncObj": stock_pysyncobj.PEER,
}
SHAPES: Final = (LoadShape(1, 1), LoadShape(100, 16), LoadShape(1_000, 1), LoadShape(1, 1_000))
OURS: Final = "smrx"


def run(
    peers: Sequence[str] = tuple(PEERS),
    *,
    shapes: Sequence[LoadShape] = SHAPES,
    durabilities: Sequence[Durability] = ("memory",),
    protocols: Sequence[ProtocolName] = ("tcp",),
    timing: Timing = Timing(1.0, 5.0),  # noqa: B008  # a tuple
    say: Say = lambda _: None,
) -> dict[str, Any]:
    """Return `clusters`, a row for each system and load, and `conditions`. Raises BenchError if smrx itself fails.

    ratio_throughput: requests a second of smrx to those of the peer. ratio_p50: the p50 of smrx to that of the peer.
    With several `protocols` of smrx, the ratios are those of the one with the shortest p50 under that load.
    """
    machine = machine_conditions.machine()
    rows: list[dict[str, Any]] = []
    for durability in durabilities:
        for shape in shapes:
            ours = []
            for protocol in protocols:
                say(f"{OURS} ({protocol}), {durability}, {shape}")
                found = _measure_ours(shape, durability, protocol, timing)
                ours.append(_row(OURS, "exchange", durability, shape, found))
            rows += ours
            best = min(ours, key=lambda row: float(row["latency_us"]["p50"]))
            for name in peers:
                say(f"{name}, {durability}, {shape}")
                row = _measure(name, PEERS[name], shape, durability, timing, say)
                _add_ratios(row, best)
                rows.append(row)
    return {
        "clusters": rows,
        "conditions": machine
        | {
            "nodes": NODES,
            "network": "loopback, load generator on the same machine",
            "loop": "closed, requests of 64 bytes, one a frame",
            "seconds": timing.seconds,
            "warm_up_seconds": timing.warm_up_s,
            "engine": "smrx: state hash, ledger and events on",
            "ratio_throughput": "requests a second of smrx to those of the peer",
            "ratio_p50": "p50 of smrx to that of the peer",
        },
    }


def _measure_ours(shape: LoadShape, durability: Durability, protocol: ProtocolName, timing: Timing) -> Answered:
    load = Shape(in_flight=shape.in_flight, seconds=timing.seconds, warm_up_s=timing.warm_up_s)
    figures = load_bench.run(load, connections=shape.connections, protocol=protocol, nodes=NODES, durability=durability)
    latency, cpu_s = figures["latency_us"], dict(figures["cpu_seconds"])
    if not figures["acknowledged"]:
        raise BenchError(f"smrx answered no order in {timing.seconds:g} s")
    load_cpu_s = cpu_s.pop("generator")
    return Answered(
        "this version",
        f"smrx, {protocol}",
        figures["acknowledged"],
        timing.seconds,
        latency["p50"],
        latency["p99"],
        sum(cpu_s.values()),
        load_cpu_s,
    )


def _measure(
    name: str, peer: ReplicatedPeer, shape: LoadShape, durability: Durability, timing: Timing, say: Say
) -> dict[str, Any]:
    """Return a peer's row; without figures if it cannot be measured."""
    if durability not in peer.durabilities:
        return _row(name, peer.does, durability, shape, None, f"it has no durability {durability}")
    try:
        return _row(name, peer.does, durability, shape, peer.measure(shape, durability, timing, say))
    except PeerUnavailable as error:
        say(f"{name} is skipped: {error}")
        return _row(name, peer.does, durability, shape, None, str(error))


def _row(
    name: str, does: str, durability: Durability, shape: LoadShape, found: Answered | None, absent: str | None = None
) -> dict[str, Any]:
    row: dict[str, Any] = {
        "name": name,
        "version": "",
        "does": does,
        "durability": durability,
        "nodes": NODES,
        "connections": shape.connections,
        "in_flight": shape.in_flight,
        "load_from": "",
        "acknowledged_per_second": None,
        "latency_us": None,
        "cpu_ns_an_order": None,
        "ratio_throughput": None,
        "ratio_p50": None,
        "absent": absent,
    }
    if found is None:
        return row
    ns_an_order = 1e9 / found.acknowledged
    return row | {
        "version": found.version,
        "load_from": found.load_from,
        "acknowledged_per_second": round(found.acknowledged / found.seconds),
        "latency_us": {"p50": round(found.p50_us, 1), "p99": round(found.p99_us, 1)},
        "cpu_ns_an_order": {
            "nodes": None if found.nodes_cpu_s is None else round(found.nodes_cpu_s * ns_an_order),
            "load": round(found.load_cpu_s * ns_an_order),
        },
    }


def _add_ratios(row: dict[str, Any], ours: dict[str, Any]) -> None:
    if row["absent"] is None:
        row["ratio_throughput"] = round(ours["acknowledged_per_second"] / row["acknowledged_per_second"], 3)
        row["ratio_p50"] = round(ours["latency_us"]["p50"] / row["latency_us"]["p50"], 2)
