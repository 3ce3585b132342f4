"""Define what an attack knows of its target, how it ends, and what it reports. Used by attacks and their process."""

import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from cluster.siege import siege_market
from smrx import client_keys
from smrx.client_keys import ClientKeys
from smrx.config import Config, NodeConfig, load
from smrx.local import SMRX


class Target(msgspec.Struct, frozen=True):
    """The cluster under attack, as a process that can reach its ports sees it."""

    config_path: str
    leader: int
    seconds: float
    #: The scale of the attack: how much it sends at once. 1 is the full scale.
    scale: float = 1.0
    #: The command that runs `smrx`, for attacks that start a process.
    program: tuple[str, ...] = SMRX

    @property
    def path(self) -> Path:
        """The path of the cluster file."""
        return Path(self.config_path)

    def config(self) -> Config:
        """Return the configuration of the cluster."""
        return load(self.config_path)


class AttackReport(msgspec.Struct):
    """What an attack did, and which promises it found broken."""

    sent: int = 0
    received: int = 0
    harm: list[str] = []
    note: str = ""


class Attacker:
    """The target, the clock of the attack and its report."""

    def __init__(self, target: Target, stopped: Callable[[], bool] = lambda: False) -> None:
        self.target = target
        self.config = target.config()
        self.report = AttackReport()
        self._stopped = stopped
        self._ends_at = time.monotonic() + target.seconds

    @property
    def running(self) -> bool:
        """Whether the attack goes on."""
        return not self._stopped() and time.monotonic() < self._ends_at

    def stop(self) -> None:
        """End the attack before its time."""
        self._ends_at = 0.0

    @property
    def leader(self) -> NodeConfig:
        """The node that led when the attack began."""
        return self.config.node(self.target.leader)

    @property
    def keys(self) -> ClientKeys | None:
        """The keys of the customer who attacks, None on a cluster without keys."""
        if not self.config.curve:
            return None
        return client_keys.of_client(self.config, self.target.path.parent / siege_market.CUSTOMER_KEY)

    def scaled(self, count: int) -> int:
        """Return a count at the scale of this run, at least 1."""
        return max(1, int(count * self.target.scale))

    def wait(self, seconds: float) -> None:
        """Sleep, but not beyond the end of the attack."""
        ends_at = min(time.monotonic() + seconds, self._ends_at)
        while self.running and (left := ends_at - time.monotonic()) > 0:
            time.sleep(min(left, 0.05))

    def harmed(self, sentence: str) -> None:
        """Report a broken promise, once."""
        if sentence not in self.report.harm:
            self.report.harm.append(sentence)
