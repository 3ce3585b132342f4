"""What a torture run is done to: nodes whose links can be broken and who say what they apply, and clients beside them.

Owns every process of a run, by its own id, and what each of them said. Decides nothing: the nemesis does.
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

from cluster.torture.proxies import Links, Pair
from cluster.torture.streams import Listener, Stream
from smrx.config import Config, Limits, NodeConfig, dump
from smrx.local import LocalCluster

#: The folder that holds the packages `cluster` and `smrx`.
_ROOT: Final = Path(__file__).resolve().parents[2]
#: In the place of a node's number.
CLIENTS: Final = 0
NODE: Final = ("cluster.torture.tap",)
#: Small, so that a run of a minute takes many snapshots and compacts its log as often.
LIMITS: Final = Limits(snapshot_commands=2_000, compaction_entries=400)


@dataclass(frozen=True)
class Life:
    """One process of a node, from its start to its end, and what it said."""

    node_id: int
    stream: Stream


class Field(LocalCluster):
    """The nodes. Leaving it stops every one of them."""

    def __init__(
        self,
        directory: Path,
        nodes: int,
        durability: Literal["memory", "disk"],
        listener: Listener,
        program: Sequence[str] = NODE,
    ) -> None:
        """`program`: what a node's process runs, a module of Python and its first arguments."""
        super().__init__(directory, nodes, durability=durability, limits=LIMITS)
        self.lives: list[Life] = []
        self._listener = listener
        self._program = tuple(program)
        self._linked = False
        self.node_ids = [node.id for node in self.config.nodes]
        ports = {node.id: node.port for node in self.config.nodes}
        self.pairs: list[Pair] = [(one, other) for one in ports for other in ports if one != other]
        #: What clients say to each node, and hear from it.
        self.entries: list[Pair] = [(CLIENTS, node) for node in ports]
        entries = {(CLIENTS, node.id): _port(node.orders_address) for node in self.config.nodes}
        self.links = Links({pair: ports[pair[1]] for pair in self.pairs} | entries)
        #: The cluster as its clients know it.
        self.client_config = self.config
        self.client_path = self.directory / "clients.toml"

    def __enter__(self) -> "Field":
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def start(self) -> None:
        """As LocalCluster; and give each node a file in which the others stand behind proxies."""
        self.links.__enter__()
        self._linked = True
        self.client_config = msgspec.structs.replace(self.config, nodes=tuple(map(self._with_entry, self.config.nodes)))
        self.client_path.write_text(dump(self.client_config), encoding="utf-8")
        for node in self.config.nodes:
            self._file_of(node.id).write_text(dump(self._seen_by(node)), encoding="utf-8")
        super().start()

    def stop(self, timeout: float = 10.0) -> None:
        """As LocalCluster, and end the proxies."""
        super().stop(timeout)
        if self._linked:
            self._linked = False
            self.links.__exit__(None, None, None)

    def start_node(self, node_id: int, *options: str) -> None:
        """As LocalCluster, with a pipe for what it applies; `lives` has it."""
        with open(self.log_path(node_id), "ab") as log, self._listener.open() as (descriptor, stream):
            self.lives.append(Life(node_id, stream))
            self._processes[node_id] = subprocess.Popen(
                [
                    *(sys.executable, "-m", *self._program, str(descriptor)),
                    self.client_config.node(node_id).orders_address,
                    *("--config", str(self._file_of(node_id)), "node", "--id", str(node_id), *options),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                pass_fds=(descriptor,),
                env=environment(),
            )

    def last_line(self, node_id: int) -> str:
        """What a node said last."""
        lines = self.log_path(node_id).read_text(errors="replace").splitlines()
        return lines[-1] if lines else ""

    def _with_entry(self, node: NodeConfig) -> NodeConfig:
        return msgspec.structs.replace(node, orders_port=self.links.port((CLIENTS, node.id)))

    def _file_of(self, node_id: int) -> Path:
        return self.directory / f"cluster-of-node-{node_id}.toml"

    def _seen_by(self, me: NodeConfig) -> Config:
        nodes = tuple(
            node
            if node.id == me.id
            else msgspec.structs.replace(self._with_entry(node), port=self.links.port((me.id, node.id)))
            for node in self.config.nodes
        )
        return msgspec.structs.replace(self.config, nodes=nodes)


class Crowd:
    """The traders. Use as a context manager: leaving it ends every one of them."""

    def __init__(self, field: Field, listener: Listener, accounts: list[int]) -> None:
        self.streams: list[Stream] = []
        self.accounts = accounts
        self._field = field
        self._listener = listener
        self._processes: dict[int, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> "Crowd":
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes.values():
            process.kill()
            process.wait()

    def start(self, account: int, seed: int, patience_s: float) -> None:
        """Let a new process trade for an account, if none does."""
        if account in self._processes and self._processes[account].poll() is None:
            return
        path = self._field.directory / f"trader-{account}.log"
        with open(path, "ab") as log, self._listener.open() as (descriptor, stream):
            self.streams.append(stream)
            self._processes[account] = subprocess.Popen(
                [
                    *(sys.executable, "-m", "cluster.torture.trader", "--config", str(self._field.client_path)),
                    *("--account", str(account), "--seed", str(seed), "--patience", str(patience_s)),
                    *("--descriptor", str(descriptor)),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                pass_fds=(descriptor,),
                env=environment(),
            )

    def kill(self, account: int) -> None:
        """SIGKILL one, in the middle of whatever it does."""
        self._processes[account].kill()
        self._processes[account].wait()

    def signal(self, account: int, number: signal.Signals) -> None:
        """Send a signal to one; to one that is gone, nothing."""
        self._processes[account].send_signal(number)

    def ask_to_end(self) -> None:
        """Let every one of them wait for the answers that are missing, and end."""
        for process in self._processes.values():
            process.send_signal(signal.SIGCONT)
            process.send_signal(signal.SIGTERM)

    def running(self) -> list[int]:
        """The accounts of those that have not ended."""
        return [account for account, process in self._processes.items() if process.poll() is None]

    def fault(self) -> str | None:
        """Who ended otherwise than by being killed or asked, and what it said; None if nobody did."""
        for account, process in self._processes.items():
            if process.poll() not in (None, 0, -signal.SIGKILL):
                said = (self._field.directory / f"trader-{account}.log").read_text(errors="replace").splitlines()
                return f"trader {account} ended with {process.returncode}: {said[-1] if said else 'it said nothing'}"
        return None


def _port(address: str) -> int:
    return int(address.rsplit(":", 1)[1])


def environment() -> dict[str, str]:
    """A child's environment in which it finds these packages wherever the parent was started."""
    path = os.environ.get("PYTHONPATH")
    return os.environ | {"PYTHONPATH": str(_ROOT) + (os.pathsep + path if path else "")}
