"""Measure a cluster under a load: throughput, latency, what limits it, and what a fault in the middle costs.

Starts real nodes on this machine and offers each load to them (load_generator.py for connections, load_sdk.py for the
clients of smrx.client). Prints nothing; the command line does.
"""

import signal
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Final, Literal, NamedTuple

import msgspec
import numpy as np

from smrx.bench import load_flow, load_histogram, load_sdk, machine_conditions, process_time, tapes
from smrx.bench.bench_error import BenchError
from smrx.bench.cluster_bench import common_hash
from smrx.bench.leader_profile import LeaderProfile
from smrx.bench.load_flow import Load
from smrx.bench.load_generator import BIN_NS, Measured, Shape, measure
from smrx.bench.load_protocols import Protocol, Ring, Soup, Tcp, Zmtp
from smrx.client import Client
from smrx.client.admin_client import open_admin_client
from smrx.config import Config, GatewayConfig, Limits, Timing, dump
from smrx.local import SMRX, LocalCluster, LocalClusterError, free_ports
from smrx.node.order_rings import MOST_RINGS
from smrx.wire.admin import Snapshot
from smrx.wire.codes import OutcomeStatus

ProtocolName = Literal["tcp", "zmq", "ring", "native", "sdk", "sdk-blocking"]
Fault = Literal["leader", "follower", "snapshot"]
Durability = Literal["memory", "disk"]

_PROTOCOLS: Final[dict[str, Callable[[], Protocol]]] = {"tcp": Tcp, "zmq": Zmtp, "ring": Ring, "native": Soup}
#: How long the stopped follower is stopped, as a share of the measured time.
_STOPPED_SHARE: Final = 0.25
_LEADER_S: Final = 20.0
#: A gateway may have to compile.
_GATEWAY_S: Final = 120.0
_STOP_S: Final = 20.0
#: Orders of the market's setup that are under way at a time.
_SETUP_WINDOW: Final = 8192

Progress = Callable[[str, float], None]


def run(
    shape: Shape,
    *,
    connections: int = 1,
    protocol: ProtocolName = "tcp",
    nodes: int = 3,
    durability: Durability = "memory",
    rates: Sequence[float] = (),
    mix: str = "steady",
    tape: Sequence[str] = (),
    fault: Fault | None = None,
    budget: bool = False,
    flame: str | None = None,
    spin_us: int = 0,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Return the figures of the last load; with several `rates` also those of each, under `curve`. Raises BenchError.

    Keys: acknowledged_per_second, offered_per_second, latency_us (p50, p90, p99, p999, max), connections, in_flight,
    frame_commands, cpu_seconds (by node id, and of the generator), cpu_ns_an_order (the same), generator (lag and turns
    in microseconds, whether it was the limit), rejected, unsent, reconnects, state_hash (equal on all nodes), series
    (in each 100 ms: orders answered, and the longest latency in microseconds), conditions. With `budget` also
    budget_ns_an_order (by node id: the time of its loop in each stage). `flame` is the file for a flame graph of the
    leader under the last load; sampling costs the leader some time.
    """
    profile = None if flame is None else LeaderProfile(flame)
    if protocol == "sdk-blocking" and (connections, shape.in_flight) != (1, 1):
        raise ValueError("--protocol sdk-blocking: expected one connection with one order under way")
    is_sdk = protocol in ("sdk", "sdk-blocking")
    if is_sdk and (rates or tape or fault):
        raise ValueError(f"--protocol {protocol} has no --rate, --tape and --fault")
    if protocol == "native" and shape.frame_commands > 1:
        raise ValueError("--protocol native: expected one command a frame: each is a packet of its own")
    if protocol == "ring" and connections > MOST_RINGS:
        raise ValueError(f"--protocol ring: expected at most {MOST_RINGS} connections: a node has no more rings")
    machine = machine_conditions.machine()
    load = load_flow.of_tape(tapes.read_tape(tape), connections) if tape else load_flow.of_mix(mix, connections)
    figures: dict[str, Any] = {}
    curve = []
    with (
        tempfile.TemporaryDirectory(prefix="smrx-load-") as directory,
        LocalCluster(
            directory,
            nodes,
            durability=durability,
            limits=_limits(shape, connections),
            timing=Timing(spin_us=spin_us),
        ) as cluster,
        ExitStack() as stack,
    ):
        gateway: Gateway | None = None
        cluster.wait_leader()
        prepare(cluster.config, load)
        if is_sdk:
            load_sdk.prepare(cluster.config)
        if protocol == "native":
            gateway = stack.enter_context(running_gateway(cluster, shape, connections))
        for number, rate in enumerate(rates or (None,)):
            part = shape._replace(rate=rate)
            sampled = profile if number == max(0, len(rates) - 1) else None
            figures = _run_one(cluster, load, part, protocol, number, fault, progress, gateway, sampled, budget=budget)
            curve.append({key: figures[key] for key in ("offered_per_second", "acknowledged_per_second", "latency_us")})
        figures["state_hash"] = f"{common_hash(cluster):016x}"
    figures["conditions"] = machine | {
        "nodes": nodes,
        "durability": durability,
        "protocol": protocol,
        "loop": "open" if rates else "closed",
        "flow": load.description,
        "seconds": shape.seconds,
        "warm_up_seconds": shape.warm_up_s,
        "fault": fault,
        "spin_us": spin_us,
        "engine": "state hash, ledger and events on",
        "network": "loopback, load generator on the same machine",
    }
    return figures | ({"curve": curve} if len(curve) > 1 else {})


def prepare(config: Config, load: Load) -> None:
    """List the market of a load and open its accounts; raises BenchError."""
    with Client(config, window=_SETUP_WINDOW) as client:
        outcomes = client.submit(*load.market)
    refused = outcomes[outcomes["status"] == OutcomeStatus.REJECTED]
    if len(refused):
        raise BenchError(f"the cluster refused {len(refused)} commands of the market's setup, first: {refused[0]}")


class Gateway(NamedTuple):
    """A running gateway of the cluster."""

    process: "subprocess.Popen[bytes]"
    address: str


@contextmanager
def running_gateway(cluster: LocalCluster, shape: Shape, connections: int) -> Iterator[Gateway]:
    """Run a gateway beside the nodes, which does not limit what the load does; raises BenchError."""
    (port,) = free_ports(1)
    settings = GatewayConfig(
        port=port,
        connections=max(64, 2 * connections),
        commands_under_way=max(4096, shape.in_flight),
        silence_ms=3_600_000,
    )
    path, log_path = cluster.directory / "gateway.toml", cluster.directory / "gateway.log"
    path.write_text(dump(msgspec.structs.replace(cluster.config, gateways=(settings,))), encoding="utf-8")
    with open(log_path, "ab") as log:
        process = subprocess.Popen(
            [*SMRX, "--config", str(path), "gateway"], stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
        )

    def listens() -> bool:
        if process.poll() is not None:
            raise BenchError(f"the gateway ended: {log_path.read_text(errors='replace')[-1000:]}")
        with socket.socket() as probe:
            return probe.connect_ex((settings.host, port)) == 0

    try:
        cluster.wait_for(listens, _GATEWAY_S, "the gateway to listen")
        yield Gateway(process, settings.address)
    finally:
        process.terminate()
        try:
            process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _limits(shape: Shape, connections: int) -> Limits:
    """Return the limits of the nodes: nothing that the load does is refused."""
    waiting = shape.in_flight * shape.frame_commands
    default = Limits()
    return Limits(
        pending_commands=max(default.pending_commands, 2 * connections * waiting),
        connection_commands=max(default.connection_commands, 2 * waiting),
        account_sessions=max(default.account_sessions, 4 * connections),
    )


def _run_one(
    cluster: LocalCluster,
    load: Load,
    shape: Shape,
    protocol: ProtocolName,
    number: int,
    fault: Fault | None,
    progress: Progress | None,
    gateway: Gateway | None,
    profile: LeaderProfile | None,
    *,
    budget: bool,
) -> dict[str, Any]:
    phase = "load" if shape.rate is None else f"{shape.rate:,.0f}/s"
    watch = _Watch(cluster, shape, protocol, fault, progress, phase, gateway, profile, budget=budget)
    connections = len(load.accounts)
    if protocol in ("sdk", "sdk-blocking"):
        measured = load_sdk.measure(
            cluster.config, load, shape, blocking=protocol == "sdk-blocking", on_slice=watch.on_slice
        )
    else:
        measured = measure(
            load,
            shape,
            watch.find_leader if gateway is None else lambda: gateway.address,
            _PROTOCOLS[protocol](),
            first_session=1 + number * connections,
            on_slice=watch.on_slice,
        )
    if profile is not None:
        profile.finish()
    figures = _figures(measured, shape, connections, watch.cpu_seconds())
    if budget:
        figures["budget_ns_an_order"] = watch.budget(max(1, measured.acknowledged))
    return figures


def _figures(measured: Measured, shape: Shape, connections: int, cpu_s: dict[str, float]) -> dict[str, Any]:
    cpu = cpu_s | {"generator": round(measured.cpu_s, 3)}
    acknowledged = measured.acknowledged
    return {
        "acknowledged_per_second": round(acknowledged / measured.seconds),
        "offered_per_second": round(acknowledged / measured.seconds if shape.rate is None else shape.rate),
        "latency_us": load_histogram.in_microseconds(measured.latency),
        "connections": connections,
        "in_flight": shape.in_flight,
        "frame_commands": shape.frame_commands,
        "acknowledged": acknowledged,
        "rejected": measured.rejected,
        "unsent": measured.unsent,
        "reconnects": measured.reconnects,
        "cpu_seconds": cpu,
        "cpu_ns_an_order": {name: round(value / max(1, acknowledged) * 1e9) for name, value in cpu.items()},
        "generator": {
            "lag_us": load_histogram.in_microseconds(measured.lag),
            "turn_us": load_histogram.in_microseconds(measured.turns),
            "cpu_share": round(measured.cpu_s / measured.seconds, 3),
            "limited": measured.limited,
        },
        "series": {
            "seconds": BIN_NS / 1e9,
            "acknowledged": measured.answered.tolist(),
            "longest_us": (measured.slowest_ns // 1000).tolist(),
        },
        "distribution_us": _distribution(measured),
    }


def _distribution(measured: Measured) -> list[tuple[float, float]]:
    """Return (share of the orders, their longest latency in microseconds) for a chart of percentiles."""
    shares = 1 - np.logspace(0, -6, 61)
    found = [(float(share), load_histogram.at_share(measured.latency, float(share))) for share in shares]
    return [(round(share, 9), value / 1000) for share, value in found if value is not None]


class _Watch:
    """Reads the processor time of the nodes at the right moments, causes the fault, and finds the leader."""

    def __init__(
        self,
        cluster: LocalCluster,
        shape: Shape,
        protocol: ProtocolName,
        fault: Fault | None,
        progress: Progress | None,
        phase: str,
        gateway: Gateway | None,
        profile: LeaderProfile | None,
        *,
        budget: bool,
    ) -> None:
        self._cluster = cluster
        self._protocol = protocol
        #: Nanoseconds of each stage, by node, at each sample; None if they are not wanted.
        self._stages: list[dict[int, dict[str, int]]] | None = [] if budget else None
        self._gateway = gateway
        self._profile = profile
        self._shape = shape
        self._progress = progress
        self._phase = phase
        self._samples: list[dict[str, float]] = []
        begin, end = shape.warm_up_s, shape.warm_up_s + shape.seconds
        self._due: list[tuple[float, Callable[[], None]]] = [(begin, self._sample), (end, self._sample)]
        if profile is not None:
            self._due.append((begin, self._start_profile))
        if fault is not None:
            self._due.append((begin + shape.seconds / 2, self._faults[fault].__get__(self)))
        if fault == "follower":
            self._due.append((begin + shape.seconds * (0.5 + _STOPPED_SHARE), self._continue_follower))
        self._stopped: int | None = None

    def on_slice(self, elapsed_s: float) -> None:
        """Do what is due."""
        for entry in [entry for entry in self._due if elapsed_s >= entry[0]]:
            self._due.remove(entry)
            entry[1]()
        if self._progress is not None:
            self._progress(self._phase, min(1.0, elapsed_s / (self._shape.warm_up_s + self._shape.seconds)))

    def find_leader(self) -> str:
        """Return the address of the leader's order entry; raises BenchError."""
        try:
            leader = self._cluster.wait_leader(_LEADER_S)
        except LocalClusterError as error:
            raise BenchError(str(error)) from None
        node = self._cluster.config.node(leader)
        if self._protocol == "ring":
            return f"ring:{self._cluster.config.ring_path(leader).absolute()}"
        return node.orders_address if self._protocol == "zmq" else node.orders_tcp_address

    def cpu_seconds(self) -> dict[str, float]:
        """Return the processor time that each node used in the measured time, by id."""
        while len(self._samples) < 2:
            self._sample()
        before, after = self._samples[0], self._samples[-1]
        return {name: round(after[name] - before[name], 3) for name in after if name in before}

    def budget(self, orders: int) -> dict[str, dict[str, int]]:
        """Return the nanoseconds an order of each stage of each node, by id; call after cpu_seconds()."""
        assert self._stages is not None
        before, after = self._stages[0], self._stages[-1]
        return {
            str(node): {stage: round((spent - before[node].get(stage, 0)) / orders) for stage, spent in stages.items()}
            for node, stages in sorted(after.items())
            if node in before
        }

    def _sample(self) -> None:
        nodes = [node.id for node in self._cluster.config.nodes if self._cluster.running(node.id)]
        processes = {str(node): self._cluster.process(node).pid for node in nodes}
        if self._gateway is not None:
            processes["gateway"] = self._gateway.process.pid
        if self._stages is not None:
            self._stages.append({node: status.stage_ns for node, status in self._cluster.statuses().items()})
        self._samples.append({name: process_time.cpu_seconds(process) for name, process in processes.items()})

    def _start_profile(self) -> None:
        assert self._profile is not None
        self._profile.start(self._cluster.process(self._leader()).pid, self._shape.seconds)

    def _kill_leader(self) -> None:
        self._cluster.kill(self._leader())

    def _stop_follower(self) -> None:
        leader = self._leader()
        self._stopped = next(node.id for node in self._cluster.config.nodes if node.id != leader)
        self._cluster.signal(self._stopped, signal.SIGSTOP)

    def _continue_follower(self) -> None:
        if self._stopped is not None:
            self._cluster.signal(self._stopped, signal.SIGCONT)

    def _take_snapshots(self) -> None:
        with open_admin_client(self._cluster.config, 1.0) as ask:
            for node in self._cluster.config.nodes:
                ask(node.id, Snapshot())

    def _leader(self) -> int:
        leader = self._cluster.leader()
        if leader is None:
            raise BenchError("no node led at the time of the fault; run the benchmark again")
        return leader

    _faults: Final = {"leader": _kill_leader, "follower": _stop_follower, "snapshot": _take_snapshots}
