"""`smrx shadow` beside a running cluster: the next version is equal under the old rules and differs under the new."""

import json
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from smrx.cli.exit_codes import Exit
from smrx.client import Client
from smrx.config import Limits
from smrx.engine.kernels.rules_version import NEWEST_RULES
from smrx.local import SMRX, LocalCluster
from tests.e2e.test_upgrade import open_market
from tests.versions.next_version import NextVersion, build

SECONDS = 120.0
#: The rules of the next version.
NEXT_RULES = str(NEWEST_RULES + 1)
#: Entries after which the log is compacted: a shadow starts from a snapshot.
COMPACTION = 300


@pytest.fixture(scope="module")
def next_version() -> NextVersion:
    return build()


@pytest.fixture(params=["memory", "disk"])
def cluster(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[LocalCluster]:
    limits = Limits(compaction_entries=COMPACTION, snapshot_commands=100)
    with LocalCluster(tmp_path / "cluster", durability=request.param, limits=limits) as made:
        made.wait_leader(SECONDS)
        with Client(made.config, timeout=SECONDS) as client:
            open_market(client)
            for _ in range(COMPACTION):
                client.place_limit("BTC-USD", "buy", "1.00", "0.0005", account=1)
        yield made


def shadow(cluster: LocalCluster, program: Sequence[str], *arguments: str) -> "tuple[subprocess.Popen[str], list[str]]":
    command = [*program, "--config", str(cluster.config_path), "shadow", "--json", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True), command


def finished(process: "subprocess.Popen[str]", code: Exit) -> dict[str, Any]:
    output, errors = process.communicate(timeout=SECONDS)
    assert process.returncode == code, errors
    found: dict[str, Any] = json.loads(output)
    return found


def trade_until(cluster: LocalCluster, *processes: "subprocess.Popen[str]") -> list[str]:
    """Place orders of 1 to 10 lots until the processes end; return the ids of those of 7 lots."""
    sevens = []
    with Client(cluster.config, account=1, timeout=SECONDS) as client:
        number = 0
        while any(process.poll() is None for process in processes) and number < 20_000:
            number += 1
            answer = client.place_limit("BTC-USD", "buy", "1.00", f"0.{number % 10 + 1:04}")
            # A flow as fast as the cluster would leave behind the state after the command that differs.
            time.sleep(0.003)
            if number % 10 + 1 == 7:
                sevens.append(str(answer.order_id))
    return sevens


def test_shadow_of_a_running_cluster(cluster: LocalCluster, next_version: NextVersion) -> None:
    same, _ = shadow(cluster, SMRX, "--commands", "300")
    newer, _ = shadow(cluster, next_version.program, "--commands", "300")
    trying, _ = shadow(cluster, next_version.program, "--rules", NEXT_RULES, "--seconds", str(SECONDS))
    sevens = trade_until(cluster, same, newer, trying)
    for process in (same, newer):
        found = finished(process, Exit.OK)
        assert found["difference"] is None
        assert found["compared_until"] >= 2 * COMPACTION
    difference = finished(trying, Exit.DIVERGED)["difference"]
    # The sequence of a PLACE is the id of its order.
    assert str(difference["sequence"]) in sevens
    assert difference["equal_until"] == difference["sequence"] - 1
    assert difference["command"]["quantity_lots"] == 7
    assert difference["expected"]["outcome"]["event_kind"] == "NEW"
    assert difference["found"]["outcome"]["reason"] == "INVALID_QUANTITY"
    assert difference["records_at"] == difference["sequence"]
    assert {"counters", "orders", "balances"} <= {record["table"] for record in difference["records"]}
    # The cluster was not disturbed.
    status = subprocess.run(
        [*SMRX, "--config", str(cluster.config_path), "cluster", "status", "--json"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert {node["agreement"] for node in json.loads(status.stdout)["nodes"]} <= {"AGREE", "BEHIND"}


def test_engine_that_differs_under_the_same_rules(cluster: LocalCluster, next_version: NextVersion) -> None:
    """The next version with its planted fault: it applies the new rules before the switch."""
    folder = next_version.package.parent
    eager = (
        *next_version.program[:1], "-c",
        f"import sys; sys.path.insert(0, {str(folder)!r})\n"
        "from smrx_next.engine import Engine\n"
        "adopt = Engine._adopt\n"
        "def fault(engine, state):\n"
        "    state.core['unused'] = 1\n"
        "    adopt(engine, state)\n"
        "Engine._adopt = fault\n"
        "from smrx_next.cli import main\n"
        "main()",
    )  # fmt: skip
    process, _ = shadow(cluster, eager, "--seconds", str(SECONDS))
    trade_until(cluster, process)
    difference = finished(process, Exit.DIVERGED)["difference"]
    # The first PLACE counts too early, so its hash differs.
    assert difference["command"]["kind"] == "PLACE"
    assert difference["equal_until"] == difference["sequence"] - 1
    assert difference["expected"]["state_hash"] != difference["found"]["state_hash"]
    assert difference["records_at"] is not None
    account = next(record for record in difference["records"] if record["table"] == "accounts")
    assert account["key"] == [1]
    before, after = account["fields"]["placed"]
    assert before == 0
    assert after > 0


@pytest.mark.parametrize("cluster", ["disk"], indirect=True)
def test_shadow_of_a_stopped_nodes_log(cluster: LocalCluster, next_version: NextVersion) -> None:
    with Client(cluster.config, account=1, timeout=SECONDS) as client:
        for number in range(40):
            client.place_limit("BTC-USD", "buy", "1.00", f"0.{number % 10 + 1:04}")
    cluster.stop()
    log = ("--log", str(cluster.config.node_dir(2)))
    process, _ = shadow(cluster, next_version.program, *log)
    assert finished(process, Exit.OK)["difference"] is None
    process, _ = shadow(cluster, next_version.program, *log, "--rules", NEXT_RULES)
    difference = finished(process, Exit.DIVERGED)["difference"]
    assert difference["command"]["quantity_lots"] == 7
    lacking, command = shadow(cluster, SMRX, *log, "--rules", NEXT_RULES)
    _, errors = lacking.communicate(timeout=SECONDS)
    assert lacking.returncode == Exit.RULES, command
    assert f"this program applies versions 1 to {NEWEST_RULES} of the rules, not version {NEXT_RULES}" in errors
