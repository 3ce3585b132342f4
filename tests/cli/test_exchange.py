"""Market, order and account commands against a real node: output, JSON and refusals."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from smrx import cli
from smrx.cli.exit_codes import Exit
from smrx.local import LocalCluster

DEMO = Path(__file__).resolve().parent.parent.parent / "configs/markets/demo.toml"

Smrx = Callable[..., str]


@pytest.fixture(scope="module")
def config_path(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with LocalCluster(tmp_path_factory.mktemp("exchange"), nodes=1) as cluster:
        cluster.wait_leader()
        yield cluster.config_path


@pytest.fixture
def smrx(config_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Smrx:
    """Return a function that runs a command line, checks its exit code and returns its output."""
    monkeypatch.setenv("SMRX_CONFIG", str(config_path))

    def run(line: str, code: Exit = Exit.OK) -> str:
        capsys.readouterr()
        exit_code = cli.run(line.split())
        printed = capsys.readouterr()
        assert exit_code == code, printed.err or printed.out
        assert "Traceback" not in printed.err
        return printed.err or printed.out

    return run


@pytest.fixture(scope="module")
def market(config_path: Path) -> None:
    """The demo market; every test leaves accounts 7 and 8 without open orders."""
    assert cli.run(["--config", str(config_path), "market", "apply", str(DEMO)]) == Exit.OK


@pytest.fixture
def clean(smrx: Smrx) -> Iterator[None]:
    yield
    smrx("market revive")
    smrx("instrument resume BTC-USD")
    for account in (7, 8):
        smrx(f"account resume {account}")
        smrx(f"order cancel --account {account} --all")


pytestmark = pytest.mark.usefixtures("market", "clean")


def as_json(smrx: Smrx, line: str, code: Exit = Exit.OK) -> Any:
    return json.loads(smrx(f"{line} --json", code))


def open_orders(smrx: Smrx, account: int = 7) -> list[Any]:
    found: list[Any] = as_json(smrx, f"order list --account {account}")
    return found


def test_second_apply_changes_nothing(smrx: Smrx) -> None:
    assert smrx(f"market apply {DEMO}").splitlines()[-1] == "17 unchanged"
    found = as_json(smrx, f"market apply {DEMO} --dry-run")
    assert found["dry_run"]
    assert found["counts"] == {"unchanged": 17}


def test_market_that_differs_is_reported_with_an_exit_code(smrx: Smrx, tmp_path: Path) -> None:
    file = tmp_path / "market.toml"
    file.write_text('[[assets]]\nsymbol = "BTC"\ndecimals = 2\n')
    printed = smrx(f"market apply {file}", Exit.REFUSED)
    assert "decimals: 2 in the file, 8 at the exchange" in printed
    assert as_json(smrx, f"market apply {file}", Exit.REFUSED)["counts"] == {"differs": 1}
    file.write_text("[[assets]]\nsymbol = 1\ndecimals = 2\n")
    assert "market.toml: assets[0].symbol: expected str, found int" in smrx(f"market apply {file}", Exit.USAGE)


def test_fees_that_cannot_change_now_are_reported_as_a_difference(smrx: Smrx, tmp_path: Path) -> None:
    file = tmp_path / "market.toml"
    file.write_text(DEMO.read_text().replace('"0.05%"', '"0.07%"'))
    smrx("order place --account 7 BTC-USD buy 1 --price 100")
    printed = smrx(f"market apply {file}", Exit.REFUSED)
    assert "fees change only while the instrument has no open orders (INSTRUMENT_HAS_ORDERS)" in printed
    assert "16 unchanged" in printed


def test_all_order_types_are_placed_and_listed(smrx: Smrx) -> None:
    smrx("order place --account 7 BTC-USD buy 1 --price 100 --display 0.25 --gtd +1h --stp cancel-both --post-only")
    smrx("order place --account 7 BTC-USD buy 1 --stop 300 --limit 310")
    smrx("order place --account 7 BTC-USD buy 1 --stop 300")
    iceberg, stop_limit, stop = open_orders(smrx)
    assert (iceberg["order_type"], iceberg["tif"], iceberg["stp"], iceberg["post_only"]) == (
        "LIMIT",
        "GTD",
        "CANCEL_BOTH",
        True,
    )
    assert (iceberg["shown"], iceberg["hidden"]) == ("0.2500", "0.7500")
    assert iceberg["expires"].endswith("Z")
    assert (stop_limit["order_type"], stop_limit["stop"], stop_limit["price"]) == ("STOP_LIMIT", "300.00", "310.00")
    assert (stop["order_type"], stop["stop"], stop["price"], stop["tif"]) == ("STOP", "300.00", None, "IOC")
    [level] = as_json(smrx, "book BTC-USD")["bids"]
    assert (level["price"], level["quantity"]) == ("100.00", "0.2500"), "the book shows only the displayed quantity"
    listed = smrx("order list --account 7")
    assert [column in listed for column in ("TYPE", "STOP", "SHOWN", "HIDDEN", "EXPIRES", "TIF", "STP")] == [True] * 7
    assert as_json(smrx, "account show 7")["account"]["open_orders"] == 3


def test_trade_at_the_stop_price_triggers_a_stop(smrx: Smrx) -> None:
    smrx("order place --account 8 BTC-USD sell 1 --price 200")
    smrx("order place --account 8 BTC-USD sell 1 --price 205")
    smrx("order place --account 7 BTC-USD buy 1 --stop 200")
    assert len(open_orders(smrx)) == 1
    assert "Filled" in smrx("order place --account 7 BTC-USD buy 1 --price 200")
    assert open_orders(smrx) == []
    assert open_orders(smrx, 8) == []
    [instrument, _] = as_json(smrx, "instrument list")
    assert instrument["last_price"] == "205.00"
    printed = smrx("order place --account 7 BTC-USD buy 1 --stop 205", Exit.REFUSED)
    assert "the last trade has reached the stop price already (STOP_WOULD_TRIGGER)" in printed


def test_budget_order_buys_as_much_as_the_budget_pays(smrx: Smrx) -> None:
    smrx("order place --account 8 BTC-USD sell 2 --price 200")
    answer = as_json(smrx, "order place --account 7 BTC-USD buy --budget 100.05")
    # 0.5 at 200 cost 100.00 and a fee of 0.05 %: all of it.
    assert (answer["state"], answer["filled"]) == ("Filled", "0.5000")
    smrx("order cancel --account 8 --all")
    printed = smrx("order place --account 7 BTC-USD buy --budget 100")
    assert "Expired (the book has no more liquidity: NO_LIQUIDITY)" in printed


def test_order_is_replaced_and_a_refused_replacement_does_not_change_it(smrx: Smrx) -> None:
    order = as_json(smrx, "order place --account 7 BTC-USD buy 1 --price 190")["order_id"]
    printed = smrx(f"order replace --account 7 BTC-USD --order-id {order} --price 195.50 --quantity 0.5")
    assert f"order {order}: Replaced, filled 0.0000, remaining 0.5000" in printed
    assert "PRICE_OUTSIDE_BAND" in smrx(
        f"order replace --account 7 BTC-USD --order-id {order} --price 100 --quantity 0.5", Exit.REFUSED
    )
    [row] = open_orders(smrx)
    assert (row["order_id"], row["price"], row["quantity"]) == (order, "195.50", "0.5000")


def test_self_trade_prevention_is_reported(smrx: Smrx) -> None:
    smrx("order place --account 7 BTC-USD buy 1 --price 200")
    printed = smrx("order place --account 7 BTC-USD sell 0.5 --price 200 --tif ioc")
    assert "Expired (the order met an order of its own account: SELF_TRADE)" in printed
    printed = smrx("order place --account 7 BTC-USD sell 0.5 --price 200 --stp decrement")
    assert "SELF_TRADE" in printed
    assert [row["remaining"] for row in open_orders(smrx)] == ["0.5000"]


def test_instrument_status_changes(smrx: Smrx) -> None:
    smrx("order place --account 7 BTC-USD buy 1 --price 200")
    smrx("order place --account 7 BTC-USD buy 1 --price 199")
    for verb, status in (("halt", "HALTED"), ("cancel-only", "CANCEL_ONLY")):
        assert f"BTC-USD is {status}" in smrx(f"instrument {verb} BTC-USD")
        assert "INSTRUMENT_NOT_TRADING" in smrx("order place --account 7 BTC-USD buy 1 --price 200", Exit.REFUSED)
    assert "Cancelled" in smrx(f"order cancel --account 7 --order-id {open_orders(smrx)[0]['order_id']}")
    assert "BTC-USD is CLOSED, 1 order cancelled" in smrx("instrument close BTC-USD")
    assert as_json(smrx, "market show")["instruments"][0]["status"] == "CLOSED"
    assert as_json(smrx, "instrument resume BTC-USD")["status"] == "TRADING"


def test_rules_change_independently(smrx: Smrx) -> None:
    printed = smrx("instrument rules BTC-USD --maker-fee -0.02% --band 0 --min-notional 5")
    assert "maker fee -0.02%, taker fee 0.05%, band none" in printed
    [instrument, _] = as_json(smrx, "instrument list")
    assert (instrument["maker_fee"], instrument["taker_fee"], instrument["band"]) == ("-0.02%", "0.05%", None)
    assert instrument["min_notional"] == "5.000000"
    assert "-0.02%" in smrx("instrument list")
    smrx("instrument rules BTC-USD --maker-fee -0.01% --band 10% --min-notional 10")


def test_account_limits_are_enforced(smrx: Smrx) -> None:
    assert "open orders 1," in smrx("account limits 7 --open-orders 1")
    smrx("order place --account 7 BTC-USD buy 1 --price 200")
    printed = smrx("order place --account 7 BTC-USD buy 1 --price 200", Exit.REFUSED)
    assert "as many open orders as its limit allows (OPEN_ORDERS_LIMIT)" in printed
    shown = smrx("account show 7")
    assert "account 7: ACTIVE, 1 open order" in shown
    assert "500000000000" in shown
    assert as_json(smrx, "account limits 7 --open-orders 1000")["max_order_notional"] == 500_000_000_000


def test_suspended_account_can_only_cancel(smrx: Smrx) -> None:
    smrx("order place --account 7 BTC-USD buy 1 --price 200")
    assert "is suspended" in smrx("account suspend 7")
    assert as_json(smrx, "account show 7")["account"]["status"] == "SUSPENDED"
    assert "ACCOUNT_SUSPENDED" in smrx("order place --account 7 BTC-USD buy 1 --price 200", Exit.REFUSED)
    assert "1 order cancelled" in smrx("order cancel --account 7 --all --symbol BTC-USD --side buy")
    assert "is active" in smrx("account resume 7")


def test_kill_switch_refuses_orders(smrx: Smrx) -> None:
    assert "the kill switch is on" in smrx("market kill")
    assert "the kill switch is ON" in smrx("market show")
    assert as_json(smrx, "market show")["killed"] is True
    assert "(KILLED)" in smrx("order place --account 7 BTC-USD buy 1 --price 200", Exit.REFUSED)
    assert as_json(smrx, "market revive")["killed"] is False
    assert "the kill switch is off" in smrx("market show")


def test_supply_cap_is_enforced(smrx: Smrx) -> None:
    printed = smrx("account deposit 8 21000000 BTC", Exit.REFUSED)
    assert "the supply of the asset would exceed its maximum (SUPPLY_EXCEEDED)" in printed
    btc = as_json(smrx, "asset list")[0]
    assert (btc["supply"], btc["max_supply"]) == ("35.00000000", "21000000.00000000")


@pytest.mark.parametrize(
    ("line", "code", "expected"),
    [
        ("order place --account 7 BTC-USD buy", Exit.USAGE, "give either QUANTITY or --budget"),
        ("order place --account 7 BTC-USD buy 1 --budget 5", Exit.USAGE, "give either QUANTITY or --budget"),
        (
            "order place --account 7 BTC-USD buy 1 --stop 1.005",
            Exit.USAGE,
            "stop price: expected a multiple of the tick",
        ),
        (
            "order place --account 7 BTC-USD buy 1 --stop x",
            Exit.USAGE,
            "stop price: expected a decimal above 0, found x",
        ),
        (
            "order place --account 7 BTC-USD buy 1 --price 1e2",
            Exit.USAGE,
            "price: expected a decimal above 0 written without an exponent, found 1e2",
        ),
        ("order place --account 7 BTC-USD buy 1,5 --price 1", Exit.USAGE, "expected a decimal above 0, found 1,5"),
        ("order place --account 7 BTC-USD buy -1 --price 1", Exit.USAGE, "No such option"),
        ("order place --account 7 BTC-USD buy 1 --price 200 --display 1", Exit.REFUSED, "INVALID_DISPLAY"),
        ("order place --account 7 BTC-USD buy 1 --display 0.5", Exit.USAGE, "found a market order"),
        (
            "order place --account 7 BTC-USD buy 1 --price 200 --gtd 12:00",
            Exit.USAGE,
            "expected a time with its UTC offset",
        ),
        (
            "order place --account 7 BTC-USD buy 1 --price 200 --gtd +5w",
            Exit.USAGE,
            "expected a time with its UTC offset",
        ),
        ("order place --account 7 BTC-USD buy 1 --price 200 --gtd 2030-01-31", Exit.USAGE, "without one"),
        ("order place --account 7 BTC-USD buy 1 --price 200 --gtd 1000000000", Exit.REFUSED, "INVALID_EXPIRY"),
        ("order place --account 7 BTC-USD buy 1 --price 200 --tif gtd", Exit.USAGE, "tif GTD requires an expiry time"),
        (
            "order place --account 7 BTC-USD buy 1 --price 200 --tif gtc --gtd +1h",
            Exit.USAGE,
            "an expiry time requires tif GTD, found GTC",
        ),
        ("order place --account 7 BTC-USD buy 1 --price 200 --stp maybe", Exit.USAGE, "'maybe' is not one of"),
        ("order place --account 7 BTC-USD buy 1 --post-only", Exit.USAGE, "market order"),
        ("order place --account 7 BTC-USD buy 1 --stop 300 --price 300 --post-only", Exit.REFUSED, "UNSUPPORTED_COMB"),
        ("order place --account 7 BTC-USD sell --budget 100", Exit.REFUSED, "UNSUPPORTED_COMBINATION"),
        ("order place --account 7 BTC-USD buy 0.0001 --price 200", Exit.REFUSED, "NOTIONAL_BELOW_MINIMUM"),
        ("order replace --account 7 BTC-USD --price 1 --quantity 1", Exit.USAGE, "give exactly one of --order-id"),
        ("order replace --account 7 BTC-USD --order-id 999999 --price 1 --quantity 1", Exit.REFUSED, "UNKNOWN_ORDER"),
        ("order replace --account 7 BTC-USD --order-id 1 --price 1", Exit.USAGE, "Missing option '--quantity'"),
        ("instrument rules BTC-USD", Exit.USAGE, "no rule is given"),
        ("instrument rules BTC-USD --taker-fee 0.05", Exit.USAGE, "taker fee: expected a rate with a unit"),
        ("instrument rules BTC-USD --taker-fee 0.00005%", Exit.USAGE, "taker fee: expected a multiple of 0.0001%"),
        ("instrument rules BTC-USD --maker-fee 0.06%", Exit.REFUSED, "INVALID_RULES"),
        ("instrument rules BTC-USD --band 0.005%", Exit.USAGE, "band: expected a multiple of 0.01%"),
        ("instrument rules NOPE --band 1%", Exit.USAGE, "expected one of BTC-USD, ETH-USD, found NOPE"),
        ("instrument halt NOPE", Exit.USAGE, "expected one of BTC-USD, ETH-USD, found NOPE"),
        ("account limits 7", Exit.USAGE, "no limit is given"),
        ("account limits 7 --open-orders -1", Exit.USAGE, "x>=0"),
        ("account limits 7 --order-notional 2.5", Exit.USAGE, "expected a multiple of the minimal unit 1, found 2.5"),
        ("account limits 99 --open-orders 1", Exit.USAGE, "account 99 does not exist; open it first"),
        ("account suspend 99", Exit.REFUSED, "there is no such account (UNKNOWN_ACCOUNT)"),
        ("account show 99", Exit.USAGE, "account 99 does not exist; open it first"),
        ("account suspend 0", Exit.USAGE, "x>=1"),
        ("asset add DOGE --decimals 2 --max-supply 0.001", Exit.USAGE, "maximum supply: expected a multiple"),
        ("market apply /none/market.toml", Exit.USAGE, "cannot read the market file"),
    ],
)
def test_invalid_command_prints_one_line_and_exits_with_its_code(
    smrx: Smrx, line: str, code: Exit, expected: str
) -> None:
    message = smrx(line, code)
    assert expected in message
    # click prints the usage above its own messages.
    assert message.count("\n") == 1 or message.startswith("Usage: ")
