"""The attacks of the siege on gateways find a gateway that lacks what they look for, and no harm in one that has it."""

import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from cluster.siege import siege_gateway, siege_market
from cluster.siege.attack_table import ATTACKS
from cluster.siege.attack_target import Attacker, Target
from cluster.siege.siege_gateway import MAIN, SiegeGateway
from smrx.client import Client
from smrx.config import Config, dump
from smrx.local import SMRX, LocalCluster

UNBOUNDED = (sys.executable, "-m", "tests.cluster.siege.unbounded_node")


@pytest.fixture(scope="module")
def config(shared_cluster: LocalCluster, tmp_path_factory: pytest.TempPathFactory) -> Config:
    with Client(shared_cluster.config) as venue:
        venue.open_account(siege_market.CUSTOMER)
    return siege_gateway.with_gateways(shared_cluster.config)


@pytest.fixture
def attack(shared_cluster: LocalCluster, config: Config, tmp_path: Path) -> "Attack":
    return Attack(shared_cluster.wait_leader(), config, tmp_path)


class Attack:
    def __init__(self, leader: int, config: Config, directory: Path) -> None:
        self._leader, self._config, self._directory = leader, config, directory

    def __call__(self, names: Sequence[str], program: tuple[str, ...], seconds: float) -> list[str]:
        """Run attacks on one gateway of this program; return the harm that they report."""
        path = self._directory / "siege.toml"
        path.write_text(dump(self._config), encoding="utf-8")
        found: list[str] = []
        with SiegeGateway(program, path, MAIN, self._directory / "main.log") as gateway:
            gateway.wait_listening(self._config.gateway(MAIN).address)
            for name in names:
                attacker = Attacker(Target(str(path), self._leader, seconds, 0.05, program))
                ATTACKS[name].run(attacker)
                found += attacker.report.harm
            assert gateway.is_running
        return found


def test_attacks_report_no_harm_of_a_gateway_in_order(attack: Attack) -> None:
    assert attack([name for name, known in ATTACKS.items() if known.gateway], SMRX, 0.4) == []


@pytest.mark.parametrize(
    ("fault", "name", "problem"),
    [
        ("gateway-says-nothing", "gateway-garbage", "without a sentence"),
        ("gateway-drops-answers", "gateway-slow-readers", "expected the answers from request"),
        ("gateway-admits-at-once", "gateway-idle", "a new client beside idle connections was not served"),
        ("gateway-shares-its-address", "gateway-twins", "was not refused"),
    ],
)
def test_attack_finds_a_faulty_gateway(attack: Attack, fault: str, name: str, problem: str) -> None:
    found = attack([name], (*UNBOUNDED, fault), 1.5)
    assert any(problem in sentence for sentence in found), found
