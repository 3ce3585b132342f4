"""Market files: errors name the key, and applying a file twice changes nothing the second time."""

import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smrx.client import Client, InvalidValue, market_file
from smrx.client.market_file import MarketFileError
from smrx.wire.records import CAPACITIES
from tests.client.conftest import Call
from tests.client.stub_cluster import StubCluster

DEMO = Path(__file__).resolve().parent.parent.parent / "configs/markets/demo.toml"
ASSET = '[[assets]]\nsymbol = "BTC"\ndecimals = 8\n'
INSTRUMENT = '[[instruments]]\nsymbol = "BTC-USD"\nbase = "BTC"\nquote = "USD"\ntick = "0.01"\nlot = "0.0001"\n'
ACCOUNT = "[[accounts]]\nid = 7\n"


@pytest.mark.parametrize("data", [b"\xef\xbb\xbf" + ASSET.encode(), ASSET.replace("\n", "\r\n").encode()])
def test_file_with_byte_order_mark_or_crlf_is_read(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "market.toml"
    path.write_bytes(data)
    assert [asset.symbol for asset in market_file.load(path).assets] == ["BTC"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a = [", "the market file is not valid TOML: .*"),
        ("a = " + "[" * 5000, "the market file is not valid TOML: .*"),
        ("a = " + "9" * 5000, "the market file is not valid TOML: .*"),
        ("asset = 1", "asset: unknown key; expected one of capacity, assets, instruments, accounts"),
        ("[capacity]\norders = 0", "capacity.orders: expected int >= 1, found 0"),
        ("[capacity]\norders = 16000001", "capacity.orders: expected int <= 16000000, found 16000001"),
        ("[capacity]\nanswers = 64000001", "capacity.answers: expected int <= 64000000, found 64000001"),
        ("[capacity]\nrows = 1", "capacity.rows: unknown key; expected one of accounts, orders, balances, .*"),
        ("assets = 1", "assets: expected array, found int"),
        ("[[assets]]\ndecimals = 8", r"assets\[0\].symbol: required key is missing"),
        ("[[assets]]\nsymbol = 1\ndecimals = 8", r"assets\[0\].symbol: expected str, found int"),
        ('[[assets]]\nsymbol = "BTC"\ndecimals = 19', r"assets\[0\].decimals: expected int <= 18, found 19"),
        (
            '[[assets]]\nsymbol = "btc"\ndecimals = 8',
            r"assets\[0\].symbol: expected 1 to 16 characters .*, found 'btc'",
        ),
        (
            INSTRUMENT.replace("BTC-USD", "X" * 25),
            r"instruments\[0\].symbol: expected 1 to 24 characters .*\(25 characters\)",
        ),
        (INSTRUMENT + 'rules.collar = "-1%"', r"instruments\[0\].rules.collar: expected 0% to 100%"),
        (
            INSTRUMENT + 'rules.collar_reference = "MIDDLE"',
            r"instruments\[0\].rules.collar_reference: expected one of BEST_PRICE, LAST_TRADE, found 'MIDDLE'",
        ),
        (ASSET + "max_supply = 2.5", r"assets\[0\].max_supply: expected int \| str \| null, found float"),
        (ASSET + 'max_supply = "-1"', r"assets\[0\].max_supply: expected a decimal above 0, found -1"),
        (ASSET + ASSET, "assets.symbol: BTC occurs twice"),
        (ASSET + "colour = 1", r"assets\[0\].colour: unknown key; expected one of symbol, decimals, max_supply"),
        (INSTRUMENT.replace('"0.01"', "0.01"), r"instruments\[0\].tick: expected int \| str, found float"),
        (INSTRUMENT.replace('"0.01"', '"0"'), r"instruments\[0\].tick: expected a decimal above 0, found 0"),
        (
            INSTRUMENT.replace('"0.01"', '"1e-2"'),
            r"instruments\[0\].tick: expected .* without an exponent, found 1e-2",
        ),
        (INSTRUMENT + 'status = "OPEN"', r"instruments\[0\].status: expected one of TRADING, .*, found 'OPEN'"),
        (INSTRUMENT + "rules = 1", r"instruments\[0\].rules: expected object, found int"),
        (
            INSTRUMENT + "rules.fee = 1",
            r"instruments\[0\].rules.fee: unknown key; expected one of maker_fee, .*",
        ),
        (INSTRUMENT + 'rules.taker_fee = "0.05"', r"instruments\[0\].rules.taker_fee: expected a rate with a unit"),
        (INSTRUMENT + 'rules.band = "0.001%"', r"instruments\[0\].rules.band: expected a multiple of 0.01%"),
        (
            INSTRUMENT + 'rules.min_price = "x"',
            r"instruments\[0\].rules.min_price: expected a decimal above 0, found x",
        ),
        ("[[accounts]]\nid = 0", r"accounts\[0\].id: expected int >= 1, found 0"),
        (ACCOUNT + ACCOUNT, "accounts.id: 7 occurs twice"),
        (ACCOUNT + 'status = "TRADING"', r"accounts\[0\].status: expected one of ACTIVE, SUSPENDED, found 'TRADING'"),
        (ACCOUNT + "limits.orders = 1", r"accounts\[0\].limits.orders: unknown key; expected one of open_orders"),
        (ACCOUNT + "limits.open_notional = 1", r"accounts\[0\].limits.asset: required, as the asset"),
        (ACCOUNT + "limits.order_quantity = 1", r"accounts\[0\].limits.symbol: required, as the instrument"),
        (
            ACCOUNT + '[[accounts.deposits]]\ntransfer_id = 0\nasset = "USD"\namount = 1',
            r"accounts\[0\].deposits\[0\].transfer_id: expected int >= 1, found 0",
        ),
        (
            ACCOUNT + '[[accounts.deposits]]\ntransfer_id = 18446744073709551616\nasset = "USD"\namount = 1',
            r"accounts\[0\].deposits\[0\].transfer_id: expected 1 to 2\^64 - 1, found 18446744073709551616",
        ),
        (
            ACCOUNT + '[[accounts.deposits]]\ntransfer_id = 1\nasset = "USD"\namount = 0',
            r"accounts\[0\].deposits\[0\].amount: expected a decimal above 0, found 0",
        ),
        (
            ACCOUNT + '[[accounts.deposits]]\ntransfer_id = 1\nasset = "USD"\namount = 1\n' * 2,
            "accounts.deposits.transfer_id: 1 occurs twice",
        ),
    ],
)
def test_error_is_one_sentence_with_file_and_key(text: str, message: str) -> None:
    with pytest.raises(MarketFileError) as caught:
        market_file.parse(text, "market.toml")
    assert re.fullmatch(f"market.toml: {message}.*", str(caught.value)), str(caught.value)
    assert "\n" not in str(caught.value)


keys = st.sampled_from(
    [
        *("assets", "instruments", "accounts", "symbol", "decimals", "max_supply", "base", "quote", "tick", "lot"),
        *("status", "rules", "maker_fee", "band", "min_price", "id", "limits", "open_orders", "open_notional", "asset"),
        *("deposits", "transfer_id", "amount", "other"),
    ]
)
leaves = (
    st.integers()
    | st.floats()
    | st.booleans()
    | st.text(max_size=6)
    | st.sampled_from(["BTC", "USD", "0.01", "5bps", "-1%", "ACTIVE", "CLOSED", "0"])
)
values = st.recursive(
    leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=5), max_leaves=12
)


@given(st.dictionaries(keys, values, max_size=4))
def test_any_table_is_a_market_or_an_error_that_names_the_file(raw: dict[str, Any]) -> None:
    message = "market.toml: nothing"
    try:
        market_file.check(raw, "market.toml")
    except MarketFileError as error:
        message = str(error)
    assert message.startswith("market.toml: ")


def test_unreadable_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(MarketFileError, match=r"none\.toml: cannot read the market file: No such file"):
        market_file.load(tmp_path / "none.toml")
    (tmp_path / "latin.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(MarketFileError, match="is not UTF-8 text"):
        market_file.load(tmp_path / "latin.toml")


def test_demo_market_is_applied_once(call: Call, stub: StubCluster) -> None:
    market = market_file.load(DEMO)
    before = stub.exchange.sequence
    dry = call(0, "apply_market", market, dry_run=True)
    assert stub.exchange.sequence == before, "a dry run opens no session"
    first = call(0, "apply_market", market)
    again = call(0, "apply_market", market)
    assert [setting.what for setting in dry] == [setting.what for setting in first] == [s.what for s in again]
    expected = {"would change": "changed", "unchanged": "unchanged"}
    assert [expected[setting.state] for setting in dry] == [setting.state for setting in first]
    assert {setting.state for setting in first} == {"changed", "unchanged"}
    assert {setting.state for setting in again} == {"unchanged"}
    assert {setting.state for setting in call(0, "apply_market", market, dry_run=True)} == {"unchanged"}
    [instrument, _] = call(0, "instruments")
    assert (instrument.taker_fee, instrument.maker_fee, instrument.band_bp) == (500, -100, 1000)
    assert call(7, "account_state").max_open_notional == 2_000_000_000_000
    assert {(row.asset, row.available) for row in call(7, "balances")} == {
        ("USD", "1000000.000000"),
        ("BTC", "10.00000000"),
    }


@pytest.fixture
def venue(stub: StubCluster) -> Client:
    client = Client(stub.config, account=0)
    client.apply_market(market_file.load(DEMO))
    return client


def applied(venue: Client, text: str) -> dict[str, tuple[str, str]]:
    with venue:
        found = venue.apply_market(market_file.parse(text, "market.toml"))
    return {setting.what: (setting.state, setting.detail) for setting in found}


def test_differences_are_changed_if_possible(venue: Client, stub: StubCluster) -> None:
    found = applied(
        venue,
        INSTRUMENT
        + 'status = "HALTED"\nrules.taker_fee = "0.06%"\nrules.band = 0\n'
        + ACCOUNT
        + 'status = "SUSPENDED"\n'
        "limits.open_orders = 5\n",
    )
    assert found == {
        "instrument BTC-USD": ("unchanged", "tick 0.01, lot 0.0001"),
        "rules of BTC-USD": ("changed", "taker_fee 0.05% -> 0.06%, band 10% -> none"),
        "status of BTC-USD": ("changed", "status TRADING -> HALTED"),
        "account 7": ("unchanged", "open"),
        "limits of account 7": ("changed", "max_open_orders 1000 -> 5"),
        "status of account 7": ("changed", "status ACTIVE -> SUSPENDED"),
    }
    instrument = stub.exchange.instruments[1]
    assert (instrument.taker_fee, instrument.maker_fee, instrument.band_bp) == (600, -100, 0)
    assert stub.exchange.account_row(7).max_open_notional == 2_000_000_000_000, "a limit that is absent is unchanged"


def test_differences_that_cannot_change_are_reported_and_the_rest_is_applied(venue: Client, stub: StubCluster) -> None:
    found = applied(
        venue,
        '[[assets]]\nsymbol = "BTC"\ndecimals = 6\nmax_supply = 5\n'
        + INSTRUMENT.replace("0.0001", "0.001")
        + 'max_price = "0.001"\n'
        + ACCOUNT
        + '[[accounts.deposits]]\ntransfer_id = 7001\nasset = "USD"\namount = 5\n'
        + "[[accounts]]\nid = 9\n",
    )
    assert found["asset BTC"][0] == found["instrument BTC-USD"][0] == found["deposit 7001"][0] == "differs"
    assert "decimals: 6 in the file, 8 at the exchange; max_supply" in found["asset BTC"][1]
    assert "lot: 0.001 in the file, 0.0001 at the exchange" in found["instrument BTC-USD"][1]
    assert "max_price: BTC-USD price: expected a multiple" in found["instrument BTC-USD"][1]
    assert found["account 9"] == ("changed", "opened")
    assert 9 in stub.exchange.accounts


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (ASSET + INSTRUMENT, "instrument BTC-USD: asset USD is neither in the file nor at the exchange"),
        (
            ASSET + '[[assets]]\nsymbol = "USD"\ndecimals = 2\n' + INSTRUMENT,
            "tick: one tick times one lot must be a multiple of the minimal unit of USD",
        ),
        (
            ASSET + '[[assets]]\nsymbol = "USD"\ndecimals = 6\n' + INSTRUMENT + 'rules.min_price = "0.005"',
            "minimum price: expected a multiple of the tick 0.01",
        ),
        (ACCOUNT + "limits.open_notional = 1\nlimits.asset = 'USD'", "account 7: asset USD is neither"),
        (ACCOUNT + "limits.order_quantity = 1\nlimits.symbol = 'X'", "account 7: instrument X is neither"),
        (
            ASSET + ACCOUNT + '[[accounts.deposits]]\ntransfer_id = 1\nasset = "BTC"\namount = "0.000000001"',
            "BTC amount: expected a multiple of the minimal unit",
        ),
    ],
)
def test_invalid_value_is_rejected_before_anything_is_changed(stub: StubCluster, text: str, message: str) -> None:
    with Client(stub.config, account=0) as client, pytest.raises(InvalidValue, match=message):
        client.apply_market(market_file.parse(text, "market.toml"))
    assert stub.exchange.sequence == 0


def test_capacity_is_set_once(call: Call, stub: StubCluster) -> None:
    """What the file does not name stays as it is at the exchange."""
    stub.capacity = dict.fromkeys(CAPACITIES, 100)
    wanted = market_file.parse("[capacity]\norders = 50\nsessions = 100", "market.toml")
    assert [(change.state, change.detail) for change in call(0, "apply_market", wanted)] == [
        ("changed", "orders 100 -> 50")
    ]
    sent = stub.exchange.sent()
    assert {name: sent[name] for name in CAPACITIES} == dict.fromkeys(CAPACITIES, 100) | {"orders": 50}
    stub.capacity["orders"] = 50
    assert [change.state for change in call(0, "apply_market", wanted)] == ["unchanged"]
