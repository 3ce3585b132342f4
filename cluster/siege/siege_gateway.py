"""Run the gateways of a siege as processes: the one through which the honest client trades, and those of attacks.

Owns how the gateways of a siege are configured, and each process. Used by siege_run.py and gateway_attacks.py.
"""

import signal
import socket
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from cluster.siege.raw_connection import split_address
from cluster.torture.cluster_under_test import environment
from smrx.config import Config, GatewayConfig
from smrx.local import free_ports

#: The gateway of the honest client, and one that attacks may start.
MAIN, SPARE = "main", "spare"
#: Fewer connections than an attack opens, and a short time for a login, so that the bounds are reached.
_CONNECTIONS: Final = 8_192
_LOGIN_MS: Final = 1_000
_SILENCE_MS: Final = 4_000
#: Of one client: a flood may not take the exchange from the others.
_COMMANDS_PER_SECOND: Final = 8_192
COMMANDS_UNDER_WAY: Final = 256
_START_SECONDS: Final = 60.0


def with_gateways(config: Config) -> Config:
    """Return the configuration of a cluster with the gateways of a siege."""
    gateways = tuple(
        GatewayConfig(
            name=name,
            port=port,
            connections=_CONNECTIONS,
            login_ms=_LOGIN_MS,
            silence_ms=_SILENCE_MS,
            commands_per_second=_COMMANDS_PER_SECOND,
            commands_under_way=COMMANDS_UNDER_WAY,
        )
        for name, port in zip((MAIN, SPARE), free_ports(2), strict=True)
    )
    return msgspec.structs.replace(config, gateways=gateways)


class SiegeGateway:
    """One gateway process. A context manager; leaving it ends the process."""

    def __init__(self, program: Sequence[str], config_path: Path, name: str, log: Path) -> None:
        """`program`: the command that runs `smrx`."""
        with open(log, "ab") as output:
            self._process = subprocess.Popen(
                [*program, "--config", str(config_path), "gateway", "--name", name],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment(),
            )
        self._log = log

    def __enter__(self) -> "SiegeGateway":
        return self

    def __exit__(self, *_: object) -> None:
        if self.is_running:
            self.signal(signal.SIGCONT)
            self._process.kill()
        self._process.wait()

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether the process runs."""
        return self._process.poll() is None

    def signal(self, number: signal.Signals) -> None:
        """Send a signal."""
        self._process.send_signal(number)

    def wait_listening(self, address: str) -> None:
        """Wait until the gateway accepts connections. Raises RuntimeError if it ends, or after a time."""
        deadline = time.monotonic() + _START_SECONDS
        while True:
            if not self.is_running or time.monotonic() > deadline:
                raise RuntimeError(f"the gateway at {address} does not listen: {self._last_line()}")
            with socket.socket() as probe:
                if probe.connect_ex(split_address(address)) == 0:
                    return
            time.sleep(0.02)

    def wait_ended(self, seconds: float) -> tuple[int | None, str]:
        """Wait for the end of the process; return its exit code, None if it runs on, and the last line of its log."""
        try:
            return self._process.wait(seconds), self._last_line()
        except subprocess.TimeoutExpired:
            return None, self._last_line()

    def _last_line(self) -> str:
        lines = self._log.read_text(errors="replace").splitlines()
        return lines[-1] if lines else "no output"
