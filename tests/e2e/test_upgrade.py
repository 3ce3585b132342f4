"""A running cluster changes to the next version, one node after the other, under load: nothing is lost, nothing fails.

The next version has another record and another rule (tests/versions). Before the switch a node can go back; after it,
no program without the new rules can be a member.
"""

import json
import re
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.cluster_checks import equal_logs
from smrx.cli.exit_codes import Exit
from smrx.client import Client, Refused
from smrx.client.admin_client import open_admin_client
from smrx.config import Config, Limits
from smrx.local import SMRX, LocalCluster
from smrx.wire.admin import AdminError, AdminErrorCode, LogPart, ReadLog, ReadState, RulesStatus, UpgradeRules
from tests.e2e.test_leadership_transfer import PAUSE_SECONDS
from tests.versions.next_version import NextVersion, build

#: Entries after which the log is compacted: a restarted node gets a snapshot, from either version.
COMPACTION = 64
NODES = (1, 2, 3)
#: Generous for a loaded machine.
SECONDS = 120.0


@pytest.fixture(scope="module")
def next_version() -> NextVersion:
    return build()


class Load(threading.Thread):
    """Place orders one after the other until stopped; none may fail."""

    def __init__(self, config: Config) -> None:
        super().__init__(daemon=True)
        self._config = config
        self._ended = threading.Event()
        self.placed = 0
        self.failure: BaseException | None = None

    def run(self) -> None:
        try:
            with Client(self._config, account=1, timeout=SECONDS) as client:
                while not self._ended.wait(PAUSE_SECONDS):
                    number = self.placed + 1
                    client.place_limit("BTC-USD", "buy", "1.00", "0.0005", client_order_id=number)
                    self.placed = number
        except BaseException as error:  # noqa: BLE001 (the test reports it)
            self.failure = error

    def stop(self) -> None:
        self._ended.set()
        self.join(SECONDS)
        assert not self.is_alive()
        if self.failure is not None:
            raise self.failure


@pytest.fixture(params=["memory", "disk"])
def cluster(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[LocalCluster]:
    limits = Limits(compaction_entries=COMPACTION, snapshot_commands=100)
    with LocalCluster(tmp_path / "cluster", durability=request.param, limits=limits) as made:
        made.wait_leader(SECONDS)
        yield made


def smrx(cluster: LocalCluster, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*SMRX, "--config", str(cluster.config_path), *arguments],
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )


def run_program(cluster: LocalCluster, node: int, program: tuple[str, ...]) -> None:
    """Replace the program of a node: stop it, start the other one, and wait until it holds the state."""
    process = cluster.process(node)
    process.terminate()
    assert process.wait(SECONDS) == 0
    cluster.programs[node] = program
    cluster.start_node(node)

    def is_back() -> bool:
        status = cluster.statuses().get(node)
        return status is not None and status.role in ("leader", "follower") and status.waiting is None

    cluster.wait_for(is_back, SECONDS, f"node {node} that holds the state")


def rules(cluster: LocalCluster) -> dict[int, RulesStatus | None]:
    return {node: status.rules for node, status in cluster.statuses().items()}


def await_more(cluster: LocalCluster, load: Load) -> None:
    """Wait until more orders were answered than the log keeps entries."""
    wanted = load.placed + 2 * COMPACTION
    cluster.wait_for(lambda: load.placed >= wanted or load.failure, SECONDS, "answered orders")
    assert load.failure is None


def equal_states(cluster: LocalCluster) -> int:
    """Return the state hash that all nodes have at one log index, while orders flow."""

    def hashes() -> int | None:
        seen = json.loads(smrx(cluster, "cluster", "status", "--json").stdout)
        compared = {node["agreement"] for node in seen["nodes"]}
        return seen["compared_at"] if compared == {"AGREE"} else None

    return cluster.wait_for(hashes, SECONDS, "equal states on all nodes")


def place(cluster: LocalCluster, lots: int) -> str:
    """Return how an order of so many lots ended."""
    with Client(cluster.config, account=2, timeout=SECONDS) as client:
        try:
            return client.place_limit("BTC-USD", "buy", "1.00", f"0.{lots:04}").state
        except Refused as refused:
            return str(refused.reason.name)


def open_market(client: Client) -> None:
    client.add_asset("BTC", 8)
    client.add_asset("USD", 6)
    client.add_instrument("BTC-USD", "BTC", "USD", tick="0.01", lot="0.0001", max_price="1000000", max_quantity="1000")
    for account in (1, 2):
        client.open_account(account)
        client.deposit(account, "USD", "10000000", account)


def test_rolling_upgrade(cluster: LocalCluster, next_version: NextVersion) -> None:
    new = next_version.program
    with Client(cluster.config, timeout=SECONDS) as client:
        open_market(client)
    load = Load(cluster.config)
    load.start()
    await_more(cluster, load)

    # Upgrade one node, and back: each version reads the snapshot of the other.
    run_program(cluster, 1, new)
    await_more(cluster, load)
    run_program(cluster, 2, new)
    await_more(cluster, load)
    refused = smrx(cluster, "cluster", "upgrade")
    if cluster.leader() != 3:
        assert refused.returncode == Exit.REFUSED
        assert "node 3 applies versions 1 to 2;" in refused.stderr
    run_program(cluster, 2, SMRX)
    await_more(cluster, load)
    if cluster.config.durability == "memory":
        # From a leader of the old program or the new one; in disk mode a node reads its own.
        assert cluster.log_path(1).read_text().count("installed the state after log entry") >= 1
        assert cluster.log_path(2).read_text().count("installed the state after log entry") >= 2
    assert equal_states(cluster) > 0
    assert rules(cluster) == {
        1: RulesStatus(oldest=1, newest=3, in_force=2),
        2: RulesStatus(oldest=1, newest=2, in_force=2),
        3: RulesStatus(oldest=1, newest=2, in_force=2),
    }

    # Upgrade all; the old rules apply until the switch.
    run_program(cluster, 2, new)
    run_program(cluster, 3, new)
    await_more(cluster, load)
    assert equal_states(cluster) > 0
    assert place(cluster, 7) == "New"
    status = smrx(cluster, "cluster", "status").stdout
    assert status.count("2 (has 3)") == 3
    switched = smrx(cluster, "cluster", "upgrade", "--json")
    assert switched.returncode == 0, switched.stderr
    assert json.loads(switched.stdout) == {"in_force": 3, "switched": True}
    assert place(cluster, 7) == "INVALID_QUANTITY"
    assert place(cluster, 6) == "New"
    await_more(cluster, load)
    assert equal_states(cluster) > 0

    # No way back: the old program stops, the new one continues.
    follower = next(node for node in NODES if node != cluster.leader())
    cluster.process(follower).terminate()
    cluster.process(follower).wait(SECONDS)
    cluster.programs[follower] = SMRX
    cluster.start_node(follower)
    assert cluster.process(follower).wait(SECONDS) == Exit.RULES
    last_line = cluster.log_path(follower).read_text().splitlines()[-1]
    assert "version 3 of the rules is in force" in last_line
    assert last_line.endswith("run a newer program on this node")
    cluster.programs[follower] = new
    cluster.start_node(follower)
    await_more(cluster, load)
    load.stop()

    with open_admin_client(cluster.config, 1.0) as ask:
        equal_logs(ask, NODES, SECONDS)
    with Client(cluster.config, timeout=SECONDS) as client:
        orders = [int(order.client_order_id) for order in client.orders(account=1)]
    is_complete = sorted(orders) == list(range(1, load.placed + 1))
    assert is_complete, (len(orders), load.placed)


def documented_commands() -> list[list[str]]:
    """Return the commands of docs/upgrade.md, in their order."""
    page = (Path(__file__).parents[2] / "docs/upgrade.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```sh\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    return [line.split() for block in blocks for line in block.splitlines()]


def test_commands_of_the_upgrade_page_run_in_their_order(tmp_path: Path, next_version: NextVersion) -> None:
    new = next_version.program
    with LocalCluster(tmp_path / "cluster") as cluster:
        cluster.wait_leader(SECONDS)
        with Client(cluster.config, timeout=SECONDS) as client:
            open_market(client)
        load = Load(cluster.config)
        load.start()
        for name, *arguments in documented_commands():
            assert name == "smrx"
            if arguments[0] == "node":
                for node in NODES:
                    run_program(cluster, node, new)
                continue
            program = new if arguments[0] == "shadow" else SMRX
            done = subprocess.run(
                [*program, "--config", str(cluster.config_path), *arguments],
                capture_output=True, text=True, timeout=SECONDS, check=False,
            )  # fmt: skip
            assert done.returncode == 0, (arguments, done.stdout, done.stderr)
        assert done.stdout.splitlines()[1].split()[-1] == "3"
        load.stop()


def test_upgrade_without_a_newer_version_changes_nothing(shared_cluster: LocalCluster) -> None:
    done = smrx(shared_cluster, "cluster", "upgrade")
    assert (done.returncode, done.stdout) == (0, "version 2 of the rules is in force, the newest of the leader\n")
    leader = shared_cluster.leader()
    assert leader is not None
    with open_admin_client(shared_cluster.config, SECONDS) as ask:
        reply = ask(leader, UpgradeRules())
        assert isinstance(reply, AdminError)
        assert reply.code == AdminErrorCode.REFUSED
        assert reply.message.startswith("the rules stay at version 2: node 1 applies versions 1 to 2; node 2 ")
        reply = ask(next(node for node in NODES if node != leader), UpgradeRules())
        assert isinstance(reply, AdminError)
        assert reply.code == AdminErrorCode.NOT_LEADER


def test_state_and_log_are_read_only_as_far_as_the_node_has_them(shared_cluster: LocalCluster) -> None:
    with open_admin_client(shared_cluster.config, SECONDS) as ask:
        for request in (ReadState(log_index=1 << 40), ReadLog(after=0, first_hash=1)):
            reply = ask(1, request)
            assert isinstance(reply, AdminError)
            assert reply.code == AdminErrorCode.UNAVAILABLE
        end = ask(1, ReadLog(after=1 << 40, first_hash=1 << 40))
        assert isinstance(end, LogPart)
        assert (end.entries, end.more, end.hashes) == ((), False, b"")
