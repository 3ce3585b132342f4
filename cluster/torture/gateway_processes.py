"""Start and stop the gateways of a torture run.

Owns their processes. Their order entry addresses are the proxies, so that a fault can cut them off from the nodes.
Decides nothing: the nemesis does.
"""

import signal
import subprocess
from collections.abc import Sequence
from typing import Final

from cluster.torture.cluster_under_test import GATEWAYS, ClusterUnderTest, environment
from smrx.local import SMRX
from smrx.sim.checker import Violation

#: What a gateway's process runs.
GATEWAY: Final = SMRX


class GatewayProcesses:
    """The gateways. Leaving the context kills them."""

    def __init__(self, cluster: ClusterUnderTest, program: Sequence[str] = GATEWAY) -> None:
        self.names = GATEWAYS
        self._cluster = cluster
        self._program = tuple(program)
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._killed: set[str] = set()

    def __enter__(self) -> "GatewayProcesses":
        for name in self.names:
            self.start(name)
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes.values():
            process.kill()
            process.wait()

    def start(self, name: str) -> None:
        """Start a gateway."""
        self._killed.discard(name)
        with open(self._cluster.directory / f"gateway-{name}.log", "ab") as log:
            self._processes[name] = subprocess.Popen(
                [*self._program, "--config", str(self._cluster.client_path), "gateway", "--name", name],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment(),
            )

    def kill(self, name: str) -> None:
        """Kill a gateway with SIGKILL."""
        self._killed.add(name)
        self._processes[name].kill()
        self._processes[name].wait()

    def is_killed(self, name: str) -> bool:
        """Return whether a gateway was killed and not started since."""
        return name in self._killed

    def signal(self, name: str, number: signal.Signals) -> None:
        """Send a signal to a gateway, if it runs."""
        self._processes[name].send_signal(number)

    def check(self) -> None:
        """Raise Violation if a gateway has ended by itself."""
        for name, process in self._processes.items():
            if name not in self._killed and process.poll() is not None:
                lines = (self._cluster.directory / f"gateway-{name}.log").read_text(errors="replace").splitlines()
                raise Violation(f"gateway {name} ended by itself with {process.returncode}: {lines[-1:]}")
