"""Start and stop the processes of a torture run: nodes behind link proxies, and the clients beside them.

Owns every node and client process of a run and the records each of them wrote. Decides nothing: the nemesis does.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import msgspec

from cluster.torture.link_proxies import LinkProxies, Pair
from cluster.torture.record_pipe import PipeReader, RecordStream
from smrx.config import Config, GatewayConfig, Limits, NodeConfig, dump
from smrx.local import LocalCluster, free_ports

#: The folder that holds the packages `cluster` and `smrx`.
_ROOT: Final = Path(__file__).resolve().parents[2]
#: Stands for the clients in place of a node id in a pair.
CLIENTS: Final = 0
#: The gateways, and the accounts whose clients send through them.
GATEWAYS: Final = ("a", "b")
GATEWAY_ACCOUNTS: Final = (3, 4)
NODE: Final = ("cluster.torture.applied_entries_pipe",)
#: Small, so that a run of a minute takes many snapshots and compacts its log often.
LIMITS: Final = Limits(snapshot_commands=2_000, compaction_entries=400)


@dataclass(frozen=True)
class NodeIncarnation:
    """One run of a node's process and its records."""

    node_id: int
    stream: RecordStream


class ClusterUnderTest(LocalCluster):
    """The nodes, whose links can be cut. Leaving the context stops them."""

    def __init__(
        self,
        directory: Path,
        nodes: int,
        durability: Literal["memory", "disk"],
        pipes: PipeReader,
        program: Sequence[str] = NODE,
    ) -> None:
        """`program`: the Python module that a node's process runs, and its first arguments."""
        super().__init__(directory, nodes, durability=durability, limits=LIMITS)
        self.incarnations: list[NodeIncarnation] = []
        self._pipes = pipes
        self._program = tuple(program)
        self._has_proxies = False
        self.node_ids = [node.id for node in self.config.nodes]
        ports = {node.id: node.port for node in self.config.nodes}
        self.pairs: list[Pair] = [(one, other) for one in ports for other in ports if one != other]
        #: The links between the clients and each node.
        self.client_links: list[Pair] = [(CLIENTS, node) for node in ports]
        entries = {(CLIENTS, node.id): _port(node.orders_tcp_address) for node in self.config.nodes}
        self.links = LinkProxies({pair: ports[pair[1]] for pair in self.pairs} | entries)
        #: The configuration that clients use: order entry is at the proxies.
        self.client_config = self.config
        self.client_path = self.directory / "clients.toml"

    def __enter__(self) -> "ClusterUnderTest":
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def start(self) -> None:
        """Start the proxies, and the nodes with cluster files that name the proxies of the other nodes."""
        self.links.__enter__()
        self._has_proxies = True
        self.client_config = msgspec.structs.replace(
            self.config,
            nodes=tuple(map(self._with_proxied_entry, self.config.nodes)),
            gateways=tuple(
                GatewayConfig(name=name, port=port)
                for name, port in zip(GATEWAYS, free_ports(len(GATEWAYS)), strict=True)
            ),
        )
        self.client_path.write_text(dump(self.client_config), encoding="utf-8")
        for node in self.config.nodes:
            self._config_path(node.id).write_text(dump(self._config_of(node)), encoding="utf-8")
        super().start()

    def stop(self, timeout: float = 10.0) -> None:
        """Stop the nodes and the proxies."""
        super().stop(timeout)
        if self._has_proxies:
            self._has_proxies = False
            self.links.__exit__(None, None, None)

    def start_node(self, node_id: int, *options: str) -> None:
        """Start a node with a pipe for its records; they are in `incarnations`."""
        with open(self.log_path(node_id), "ab") as log, self._pipes.open() as (descriptor, stream):
            self.incarnations.append(NodeIncarnation(node_id, stream))
            self._processes[node_id] = subprocess.Popen(
                [
                    *(sys.executable, "-m", *self._program, str(descriptor)),
                    self.client_config.node(node_id).orders_tcp_address,
                    *("--config", str(self._config_path(node_id)), "node", "--id", str(node_id), *options),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                pass_fds=(descriptor,),
                env=environment(),
            )

    def last_line(self, node_id: int) -> str:
        """Return the last line of a node's log."""
        lines = self.log_path(node_id).read_text(errors="replace").splitlines()
        return lines[-1] if lines else ""

    def _with_proxied_entry(self, node: NodeConfig) -> NodeConfig:
        return msgspec.structs.replace(node, orders_tcp_port=self.links.port((CLIENTS, node.id)))

    def _config_path(self, node_id: int) -> Path:
        return self.directory / f"cluster-of-node-{node_id}.toml"

    def _config_of(self, me: NodeConfig) -> Config:
        nodes = tuple(
            node
            if node.id == me.id
            else msgspec.structs.replace(self._with_proxied_entry(node), port=self.links.port((me.id, node.id)))
            for node in self.config.nodes
        )
        return msgspec.structs.replace(self.config, nodes=nodes)


class WorkloadClients:
    """The client processes. Leaving the context kills them."""

    def __init__(self, cluster: ClusterUnderTest, pipes: PipeReader, accounts: list[int]) -> None:
        self.streams: list[RecordStream] = []
        self.accounts = accounts
        self._cluster = cluster
        self._pipes = pipes
        self._processes: dict[int, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> "WorkloadClients":
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes.values():
            process.kill()
            process.wait()

    def start(self, account: int, seed: int, timeout_s: float) -> None:
        """Start a client for an account, if none is running."""
        if account in self._processes and self._processes[account].poll() is None:
            return
        path = self._cluster.directory / f"client-{account}.log"
        by_gateway = account in GATEWAY_ACCOUNTS
        module = "cluster.torture.gateway_client" if by_gateway else "cluster.torture.workload_client"
        with open(path, "ab") as log, self._pipes.open() as (descriptor, stream):
            self.streams.append(stream)
            self._processes[account] = subprocess.Popen(
                [
                    *(
                        sys.executable,
                        "-m",
                        module,
                        "--config",
                        str(self._cluster.client_path),
                    ),
                    *("--account", str(account), "--seed", str(seed)),
                    *(() if by_gateway else ("--timeout", str(timeout_s))),
                    *("--descriptor", str(descriptor)),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                pass_fds=(descriptor,),
                env=environment(),
            )

    def kill(self, account: int) -> None:
        """Kill the client of an account with SIGKILL."""
        self._processes[account].kill()
        self._processes[account].wait()

    def signal(self, account: int, number: signal.Signals) -> None:
        """Send a signal to the client of an account, if it is running."""
        self._processes[account].send_signal(number)

    def request_stop(self) -> None:
        """Make every client wait for its missing outcomes and end."""
        for process in self._processes.values():
            process.send_signal(signal.SIGCONT)
            process.send_signal(signal.SIGTERM)

    def running(self) -> list[int]:
        """Return the accounts whose clients are running."""
        return [account for account, process in self._processes.items() if process.poll() is None]

    def failure(self) -> str | None:
        """Return which client failed and its last line, or None; one that was killed or stopped did not fail."""
        for account, process in self._processes.items():
            if process.poll() not in (None, 0, -signal.SIGKILL):
                lines = (self._cluster.directory / f"client-{account}.log").read_text(errors="replace").splitlines()
                return f"client {account} ended with {process.returncode}: {lines[-1] if lines else 'no output'}"
        return None


def _port(address: str) -> int:
    return int(address.rsplit(":", 1)[1])


def environment() -> dict[str, str]:
    """Return the environment of a child process, with these packages on its path."""
    path = os.environ.get("PYTHONPATH")
    return os.environ | {"PYTHONPATH": str(_ROOT) + (os.pathsep + path if path else "")}
