"""Commands against a real cluster that `smrx cluster up` started."""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from smrx import cli
from smrx.cli.exit_codes import Exit
from smrx.local import LocalCluster

MARKET = """\
asset add BTC --decimals 8
asset add USD --decimals 6
instrument add BTC-USD --base BTC --quote USD --tick 0.01 --lot 0.0001
account open 7
account open 8
account deposit 7 1000000.00 USD
account deposit 8 10 BTC
order place --account 8 BTC-USD sell 0.5 --price 50000.00
order place --account 7 BTC-USD buy 0.2 --price 50000.00
"""

Smrx = Callable[..., str]


@pytest.fixture(scope="module")
def config_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a configuration with free ports; no node is started."""
    return LocalCluster(tmp_path_factory.mktemp("cli")).config_path


@pytest.fixture
def smrx(config_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Smrx:
    """Return a function that runs a command line, checks its exit code and returns its output."""
    monkeypatch.setenv("SMRX_CONFIG", str(config_path))

    def run(line: str, code: Exit = Exit.OK) -> str:
        capsys.readouterr()
        exit_code = cli.run(line.split())
        printed = capsys.readouterr()
        assert exit_code == code, printed.err
        assert "Traceback" not in printed.err
        return printed.out if code is Exit.OK else printed.err

    return run


@pytest.fixture(scope="module")
def market(config_path: Path) -> Iterator[None]:
    """A running cluster with an instrument and one trade."""
    config = ["--config", str(config_path)]
    try:
        assert cli.run([*config, "cluster", "up"]) == Exit.OK
        for line in MARKET.splitlines():
            assert cli.run([*config, *line.split()]) == Exit.OK, line
        yield
    finally:
        cli.run([*config, "cluster", "down"])


def as_json(smrx: Smrx, line: str) -> Any:
    return json.loads(smrx(f"{line} --json"))


@pytest.mark.usefixtures("market")
class TestRunning:
    def test_status_shows_three_agreeing_nodes(self, smrx: Smrx) -> None:
        lines = smrx("cluster status").splitlines()
        assert len(lines) == 4
        assert sum("leader" in line for line in lines) == 1
        assert all("AGREE at" in line for line in lines[1:])
        found = as_json(smrx, "cluster status")
        assert not found["diverged"]
        assert {node["agreement"] for node in found["nodes"]} == {"AGREE"}
        assert len({node["agreement_sequence"] for node in found["nodes"]}) == 1
        assert all(re.fullmatch("[0-9a-f]{16}", node["state_hash"]) for node in found["nodes"])

    def test_book_and_orders_show_the_remaining_quantity_after_a_trade(self, smrx: Smrx) -> None:
        book = as_json(smrx, "book BTC-USD")
        assert (book["bids"], [(level["price"], level["quantity"]) for level in book["asks"]]) == (
            [],
            [("50000.00", "0.3000")],
        )
        assert re.search(r"50000\.00 +0\.3000", smrx("book BTC-USD"))
        [order] = as_json(smrx, "order list")
        assert (order["account"], order["filled"], order["remaining"]) == (8, "0.2000", "0.3000")
        assert as_json(smrx, "order list --account 7") == []
        assert smrx("order list --account 7") == "no open orders\n"

    def test_balances_are_exact_after_a_trade(self, smrx: Smrx) -> None:
        found = {(row["account"], row["asset"]): row for row in as_json(smrx, "account balances")}
        assert found[7, "BTC"]["available"] == "0.20000000"
        assert found[8, "USD"]["available"] == "10000.000000"
        assert found[8, "BTC"]["held"] == "0.30000000"
        assert {row["account"] for row in as_json(smrx, "account balances 7")} == {7}

    def test_positions_show_balances_and_open_orders(self, smrx: Smrx) -> None:
        [seller] = as_json(smrx, "account positions 8")
        assert (seller["symbol"], seller["base"], seller["quote"]) == ("BTC-USD", "BTC", "USD")
        assert (seller["base_held"], seller["quote_total"]) == ("0.30000000", "10000.000000")
        assert (seller["buy_orders"], seller["buy_quantity"], seller["buy_notional"]) == (0, "0.0000", "0.000000")
        assert (seller["sell_orders"], seller["sell_quantity"]) == (1, "0.3000")
        assert seller["sell_notional"] == "15000.000000"
        [buyer] = as_json(smrx, "account positions 7")
        assert (buyer["base_total"], buyer["sell_orders"]) == ("0.20000000", 0)
        assert re.search(r"BTC-USD .* 1 +0\.3000 +15000\.000000", smrx("account positions 8"))
        assert smrx("account positions 99") == "no positions\n"

    def test_accounts_assets_and_instruments_are_listed(self, smrx: Smrx) -> None:
        assert as_json(smrx, "account list") == [0, 7, 8]
        assert [row["symbol"] for row in as_json(smrx, "asset list")] == ["BTC", "USD"]
        [instrument] = as_json(smrx, "instrument list")
        assert (instrument["tick"], instrument["lot"], instrument["status"]) == ("0.01", "0.0001", "TRADING")
        for line in ("account list", "asset list", "instrument list", "account balances"):
            assert len(smrx(line).splitlines()) >= 2

    @pytest.mark.parametrize("name", ["5", "desk-3/17", "a-longer-id-of-the-account-7"])
    def test_order_is_reduced_and_cancelled_by_client_order_id(self, smrx: Smrx, name: str) -> None:
        placed = as_json(smrx, f"order place --account 7 BTC-USD buy 0.5 --price 40000.00 --client-order-id {name}")
        assert placed["state"] == "New"
        [listed] = [row for row in as_json(smrx, "order list --account 7") if row["order_id"] == placed["order_id"]]
        assert listed["client_order_id"] == name
        assert name in smrx("order list --account 7")
        assert "Replaced" in smrx(f"order reduce --account 7 --client-order-id {name} --quantity 0.25")
        assert "Cancelled" in smrx(f"order cancel --account 7 --client-order-id {name}")
        assert "UNKNOWN_ORDER" in smrx(f"order cancel --account 7 --client-order-id {name}", Exit.REFUSED)
        smrx("order place --account 7 BTC-USD buy 0.1 --price 40000.00")
        assert as_json(smrx, "order cancel --account 7 --all --symbol BTC-USD --side buy")["cancelled"] == 1

    def test_stop_order_expires_within_a_second(self, smrx: Smrx) -> None:
        line = "order place --account 7 BTC-USD buy 0.1 --stop 90000 --limit 90001 --display 0.05"
        placed = as_json(smrx, f"{line} --gtd 2100-01-01T00:00:00.25Z --client-order-id stop")
        [listed] = [row for row in as_json(smrx, "order list") if row["client_order_id"] == "stop"]
        assert (listed["stop"], listed["expires"]) == ("90000.00", "2100-01-01T00:00:00.25Z")
        assert (listed["order_type"], listed["tif"], listed["shown"]) == ("STOP_LIMIT", "GTD", "0.0000")
        assert f"order {placed['order_id']}: Cancelled" in smrx("order cancel --account 7 --client-order-id stop")

    def test_collar_and_retention_are_set(self, smrx: Smrx) -> None:
        smrx("instrument rules BTC-USD --collar 5% --collar-reference last-trade --notional-of-market")
        [instrument] = as_json(smrx, "instrument list")
        assert (instrument["collar"], instrument["collar_reference"]) == ("5%", "LAST_TRADE")
        assert instrument["notional_of_market"] is True
        smrx("instrument rules BTC-USD --collar 0 --no-notional-of-market")
        [instrument] = as_json(smrx, "instrument list")
        assert (instrument["collar"], instrument["notional_of_market"]) == (None, False)
        set_to = "--session-silence 86400 --transfer-age 604800 --transfers 1000000"
        assert "silent sessions end after 86400 s" in smrx(f"market retention {set_to}")

    def test_capacity_is_set(self, smrx: Smrx) -> None:
        assert "orders 1000000" in smrx("market capacity --orders 1000000")
        assert "INVALID" not in smrx("market capacity")

    def test_repeated_transfer_id_is_applied_once(self, smrx: Smrx) -> None:
        assert "done" in smrx("account deposit 7 5.00 USD --transfer-id 77")
        assert "was made before" in smrx("account deposit 7 5.00 USD --transfer-id 77")
        assert "TRANSFER_ID_REUSED" in smrx("account deposit 7 6.00 USD --transfer-id 77", Exit.REFUSED)
        assert "done" in smrx("account withdraw 7 5.00 USD")

    @pytest.mark.parametrize(
        ("line", "code", "expected"),
        [
            ("order place --account 7 BTC-USD buy 0.2 --price 49999.999", Exit.USAGE, "tick 0.01"),
            ("order place --account 7 BTC-USD buy 0.2 --price 1e5", Exit.USAGE, "expected a decimal"),
            ("order place --account 7 BTC-USD buy 1000 --price 50000", Exit.REFUSED, "INSUFFICIENT_FUNDS"),
            ("order place --account 9 BTC-USD buy 1 --price 50000", Exit.REFUSED, "UNKNOWN_ACCOUNT"),
            ("order place --account 7 BTC-USD buy 1 --tif gtc", Exit.USAGE, "market order"),
            ("order place --account 7 ETH-USD buy 1 --price 1", Exit.USAGE, "expected one of BTC-USD"),
            ("order cancel --account 7", Exit.USAGE, "exactly one of"),
            ("order place --account 7 BTC-USD buy 1 --display 1", Exit.USAGE, "only orders with a price"),
            ("order cancel --account 7 --order-id 1 --side buy", Exit.USAGE, "need --all"),
            ("account open 7", Exit.REFUSED, "ACCOUNT_EXISTS"),
            ("asset add btc --decimals 2", Exit.USAGE, "A-Z"),
            ("instrument add X --base BTC --quote USD --tick 0.000001 --lot 0.0000001", Exit.USAGE, "multiple"),
            ("book NOPE", Exit.USAGE, "expected one of BTC-USD"),
            ("cluster up --new", Exit.RESOURCE, "running: nodes 1, 2, 3"),
        ],
    )
    def test_invalid_command_prints_one_line_and_exits_with_its_code(
        self, smrx: Smrx, line: str, code: Exit, expected: str
    ) -> None:
        message = smrx(line, code)
        assert expected in message
        assert message.count("\n") == 1

    def test_second_up_does_not_restart_running_nodes(self, smrx: Smrx) -> None:
        before = {node["node_id"]: node["incarnation"] for node in as_json(smrx, "cluster status")["nodes"]}
        assert "already running" in smrx("cluster up")
        assert {n["node_id"]: n["incarnation"] for n in as_json(smrx, "cluster status")["nodes"]} == before


def test_stopped_cluster_starts_empty_only_with_new(
    smrx: Smrx, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SMRX_CONFIG", str(LocalCluster(tmp_path, 1).config_path))
    try:
        smrx("cluster up")
        smrx("account open 7")
        assert as_json(smrx, "cluster status")["nodes"][0]["agreement"] == "NOT COMPARED"
        assert "is lost" in smrx("cluster down")
        smrx("cluster status", Exit.UNAVAILABLE)
        assert "cluster up --new" in smrx("cluster up", Exit.UNAVAILABLE)
        assert "no node" in smrx("cluster down")
        smrx("cluster up --new")
        assert as_json(smrx, "account list") == [0]
    finally:
        smrx("cluster down")
