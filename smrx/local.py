"""Run a cluster on this machine, with real processes and sockets, in a directory of its own.

For the demo, the benchmarks and the end-to-end tests. Every process is signalled by its own id.
"""

import logging
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Literal, TypeVar

import msgspec

from smrx import key_files
from smrx.client.admin_client import open_admin_client
from smrx.compiling import compile_engine
from smrx.config import Config, Limits, NodeConfig, Timing, dump
from smrx.wire.admin import NodeStatus, Status

log = logging.getLogger(__name__)

T = TypeVar("T")

#: The command that runs `smrx` of this program.
SMRX: Final = (sys.executable, "-m", "smrx")

_HOST: Final = "127.0.0.1"
_PORTS_A_NODE: Final = 6
_PORTS_SHARE: Final = "SMRX_PORTS_SHARE"
#: A healthy node answers within milliseconds; a stopped one must not delay the others.
_STATUS_SECONDS: Final = 0.5


class LocalClusterError(Exception):
    """A condition was not met in time; the message names it and shows the last log lines of the nodes."""


class LocalCluster:
    """Nodes as child processes. Use as a context manager, which stops all of them at the end."""

    def __init__(
        self,
        directory: str | Path,
        nodes: int = 3,
        *,
        timing: Timing | None = None,
        limits: Limits | None = None,
        durability: Literal["memory", "disk"] = "memory",
        program: Sequence[str] = SMRX,
        keys: bool = False,
        host: str = _HOST,
    ) -> None:
        """Choose free ports and write `cluster.toml` to `directory`, without starting a node.

        `program`: the command that runs `smrx` on every node. `keys`: give keys to all nodes and to the venue; clients
        of this process then use the venue's key, unless they are given another.
        """
        self.directory = Path(directory)
        self.directory.mkdir(parents=True, exist_ok=True)
        ports = free_ports(nodes * _PORTS_A_NODE)  # On IPv4, but few programs use a port on one version only.
        self.config = Config(
            cluster=f"local-{os.getpid()}",
            nodes=tuple(_node(i + 1, host, ports[i * _PORTS_A_NODE :][:_PORTS_A_NODE]) for i in range(nodes)),
            data_dir=str(self.directory / "data"),
            durability=durability,
            timing=timing or Timing(),
            limits=limits or Limits(),
        )
        if keys:
            self.config = with_new_keys(self.config)
        self.config_path = self.directory / "cluster.toml"
        self.config_path.write_text(dump(self.config), encoding="utf-8")
        #: The command that starts `smrx` on a node, if it is another.
        self.programs: dict[int, Sequence[str]] = {}
        self._program = tuple(program)
        self._processes: dict[int, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> "LocalCluster":
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Compile the engine once, then start all nodes that are not running."""
        compile_engine(log.info, self.config.data_dir)
        for node in self.config.nodes:
            if not self.running(node.id):
                self.start_node(node.id)

    def start_node(self, node_id: int, *options: str) -> None:
        """Start one node, with additional options; its output goes to `node-ID.log` in the directory."""
        with open(self.log_path(node_id), "ab") as log:
            self._processes[node_id] = subprocess.Popen(
                [
                    *(*self.programs.get(node_id, self._program), "--config", str(self.config_path)),
                    *("node", "--id", str(node_id), *options),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def log_path(self, node_id: int) -> Path:
        """Return the path of the log of a node."""
        return self.directory / f"node-{node_id}.log"

    def process(self, node_id: int) -> subprocess.Popen[bytes]:
        """Return the process of a started node."""
        return self._processes[node_id]

    def running(self, node_id: int) -> bool:
        """Return whether the process of the node is running."""
        process = self._processes.get(node_id)
        return process is not None and process.poll() is None

    def signal(self, node_id: int, number: signal.Signals) -> None:
        """Send a signal to one node."""
        self._processes[node_id].send_signal(number)

    def kill(self, node_id: int) -> None:
        """Kill one node with SIGKILL and wait for its exit."""
        self._processes[node_id].kill()
        self._processes[node_id].wait()

    def stop(self, timeout: float = 10.0) -> None:
        """Stop all nodes with SIGTERM, after the timeout with SIGKILL; return when all have exited."""
        running = [process for process in self._processes.values() if process.poll() is None]
        for process in running:
            process.send_signal(signal.SIGCONT)  # A stopped process does not handle SIGTERM.
            process.terminate()
        deadline = time.monotonic() + timeout
        for process in running:
            try:
                process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def leader(self) -> int | None:
        """Return the leader of the highest reported term, or None."""
        statuses = [status for status in self.statuses().values() if status.role == "leader"]
        return max(statuses, key=lambda status: status.term).node_id if statuses else None

    def statuses(self) -> dict[int, NodeStatus]:
        """Return the status of all nodes that answer."""
        with open_admin_client(self.config, _STATUS_SECONDS) as ask:
            replies = [ask(node.id, Status()) for node in self.config.nodes if self.running(node.id)]
        return {reply.node_id: reply for reply in replies if isinstance(reply, NodeStatus)}

    def wait_leader(self, timeout: float = 60.0, other_than: int | None = None) -> int:
        """Return the id of the leader once there is one other than `other_than`; raises LocalClusterError."""

        def new_leader() -> int | None:
            leader = self.leader()
            return None if leader == other_than else leader

        return self.wait_for(new_leader, timeout, "a leader")

    def wait_for(self, condition: Callable[[], T | None], timeout: float, what: str) -> T:
        """Return the first truthy value of the condition; raises LocalClusterError at the timeout."""
        deadline = time.monotonic() + timeout
        while True:
            value = condition()
            if value:
                return value
            if time.monotonic() > deadline:
                raise LocalClusterError(f"timed out after {timeout:g} s waiting for {what}\n{self._log_tails()}")
            time.sleep(0.01)

    def _log_tails(self) -> str:
        lines = []
        for node in self.config.nodes:
            path = self.log_path(node.id)
            tail = path.read_text(errors="replace").splitlines()[-5:] if path.exists() else []
            state = "running" if self.running(node.id) else "not running"
            lines += [f"node {node.id} ({state}):", *(f"  {line}" for line in tail)]
        return "\n".join(lines)


def with_new_keys(config: Config) -> Config:
    """Return a configuration with new keys for all nodes and the venue; their secret keys are in its data directory."""
    public: dict[int, str] = {}
    for node in config.nodes:
        pair = key_files.generate()
        key_files.write(config.secret_key_path(node.id), pair, f"node {node.id}")
        public[node.id] = pair.public
    venue = key_files.generate()
    key_files.write(config.venue_key_path, venue, "the venue")
    nodes = tuple(msgspec.structs.replace(node, public_keys=(public[node.id],)) for node in config.nodes)
    return msgspec.structs.replace(config, nodes=nodes, venue_keys=(venue.public,))


def free_ports(wanted: int) -> list[int]:
    """Return free ports below the ephemeral range, from which the system takes ports of outgoing connections.

    A port in that range may be free now and be taken by an outgoing connection while a node restarts. Two processes
    that call this at the same time may get the same ports, unless SMRX_PORTS_SHARE gives each its own share: "1/4" to
    "4/4" are the four quarters of all ports.
    """
    try:
        with open("/proc/sys/net/ipv4/ip_local_port_range", encoding="ascii") as file:
            first_ephemeral = int(file.read().split()[0])
    except (OSError, ValueError):
        first_ephemeral = 32768
    share, shares = map(int, os.environ.get(_PORTS_SHARE, "1/1").split("/"))
    candidates = list(range(min(10_000, first_ephemeral - 2_000), first_ephemeral))[share - 1 :: shares]
    random.SystemRandom().shuffle(candidates)
    found: list[int] = []
    for port in candidates:
        with socket.socket() as probe:
            try:
                probe.bind((_HOST, port))
            except OSError:
                continue
        found.append(port)
        if len(found) == wanted:
            return found
    raise LocalClusterError(f"only {len(found)} of {wanted} ports below {first_ephemeral} are free")


def _node(node_id: int, host: str, ports: Sequence[int]) -> NodeConfig:
    raft, orders, orders_tcp, events, admin, metrics = ports
    return NodeConfig(
        id=node_id,
        host=host,
        port=raft,
        orders_port=orders,
        orders_tcp_port=orders_tcp,
        events_port=events,
        admin_port=admin,
        metrics_port=metrics,
    )
