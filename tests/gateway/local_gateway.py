"""Gateways as real processes beside a local cluster, for tests."""

import signal
import socket
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec

from smrx.config import Config, GatewayConfig, dump
from smrx.local import SMRX, LocalCluster, free_ports

DEADLINE_S = 60.0


class LocalGateways:
    """Gateways of one cluster; each is stopped at the end."""

    def __init__(
        self,
        cluster: LocalCluster,
        names: tuple[str, ...] = ("a",),
        *,
        program: Sequence[str] = SMRX,
        **settings: object,
    ) -> None:
        """Write a cluster file with gateways of these names on free ports; start none.

        `program`: the command that runs `smrx`.
        """
        self._program = program
        ports = free_ports(len(names))
        gateways = tuple(
            msgspec.convert({"name": name, "port": port, **settings}, GatewayConfig)
            for name, port in zip(names, ports, strict=True)
        )
        self.config: Config = msgspec.structs.replace(cluster.config, gateways=gateways)
        self.directory: Path = cluster.directory
        self.path = self.directory / f"gateways-{ports[0]}.toml"
        self.path.write_text(dump(self.config), encoding="utf-8")
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> "LocalGateways":
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.processes.values():
            if process.poll() is None:
                process.send_signal(signal.SIGCONT)
                process.kill()
            process.wait()

    def address(self, name: str = "a") -> str:
        return self.config.gateway(name).address

    def start(self, name: str = "a") -> None:
        """Start a gateway, and wait until it accepts connections."""
        self.launch(name)
        deadline = time.monotonic() + DEADLINE_S
        port = self.config.gateway(name).port
        while True:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    return
            assert self.processes[name].poll() is None, self.log(name)
            assert time.monotonic() < deadline, "the gateway does not listen"
            time.sleep(0.01)

    def launch(self, name: str = "a") -> "subprocess.Popen[bytes]":
        """Start a gateway."""
        with open(self.log_path(name), "ab") as log:
            self.processes[name] = subprocess.Popen(
                [*self._program, "--config", str(self.path), "gateway", "--name", name],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        return self.processes[name]

    def kill(self, name: str = "a") -> None:
        """Kill a gateway with SIGKILL."""
        self.processes[name].kill()
        self.processes[name].wait()

    def signal(self, name: str, number: signal.Signals) -> None:
        """Send a signal to a gateway."""
        self.processes[name].send_signal(number)

    def log_path(self, name: str) -> Path:
        return self.directory / f"gateway-{name}.log"

    def log(self, name: str = "a") -> str:
        return self.log_path(name).read_text(errors="replace")
