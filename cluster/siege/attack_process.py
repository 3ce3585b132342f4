"""Run one attack in a process of its own: `python -m cluster.siege.attack_process NAME TARGET`.

The process has the lowest priority, so that what it computes takes little of the processors that the nodes share with
it; what it sends is the attack. It ends by itself after the seconds of the target, and prints its report as JSON.
AttackProcess starts it and reads the report.
"""

import os
import resource
import signal
import subprocess
import sys
from pathlib import Path
from types import FrameType
from typing import Final

import msgspec

from cluster.siege.attack_target import Attacker, AttackReport, Target
from cluster.torture.cluster_under_test import environment

#: How long an attack may take to close its connections after its time.
_END_SECONDS: Final = 20.0
_NICE: Final = 10


class AttackProcess:
    """An attack that runs. A context manager; leaving it ends the process."""

    def __init__(self, name: str, target: Target, log: Path) -> None:
        with open(log, "ab") as errors:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "cluster.siege.attack_process", name, msgspec.json.encode(target).decode()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                # Unbuffered: what wait_ready() read ahead would be missing in the report.
                bufsize=0,
                stderr=errors,
                env=environment(),
            )
        self._name, self._log = name, log
        self._seconds = target.seconds + _END_SECONDS

    def __enter__(self) -> "AttackProcess":
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def wait_ready(self) -> None:
        """Wait until the process has imported what it needs, and begins to attack."""
        assert self._process.stdout is not None
        self._process.stdout.readline()

    @property
    def running(self) -> bool:
        """Whether the attack goes on."""
        return self._process.poll() is None

    def stop(self) -> None:
        """Tell the attack to end."""
        if self.running:
            self._process.send_signal(signal.SIGTERM)

    def report(self) -> AttackReport:
        """Wait for the end of the attack and return its report; raises RuntimeError if it failed itself."""
        try:
            output, _ = self._process.communicate(timeout=self._seconds)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.communicate()
            return AttackReport(note=f"still closing its connections after {_END_SECONDS:g} s")
        if self._process.returncode:
            lines = self._log.read_text(errors="replace").splitlines()
            raise RuntimeError(f"attack {self._name} failed: {lines[-1] if lines else self._process.returncode}")
        return msgspec.json.decode(output, type=AttackReport)


def main() -> None:
    """Run the attack named by the arguments and print its report."""
    from cluster.siege.attack_table import ATTACKS

    name, target = sys.argv[1:]
    stopped = False

    def on_signal(number: int, frame: FrameType | None) -> None:
        nonlocal stopped
        stopped = True

    signal.signal(signal.SIGTERM, on_signal)
    os.nice(_NICE)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    attacker = Attacker(msgspec.json.decode(target, type=Target), lambda: stopped)
    ATTACKS[name].run(attacker)
    sys.stdout.write(msgspec.json.encode(attacker.report).decode())
    sys.stdout.flush()
    # Without waiting for what ZeroMQ still has to send.
    os._exit(0)


if __name__ == "__main__":
    main()
