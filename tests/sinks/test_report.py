"""Reports equal a market computed by hand, and the balances of the exchange."""

import csv
import itertools
import json
import random
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from smrx.cli import run as smrx
from smrx.cli.exit_codes import Exit
from smrx.settlement.report import Query, make_report
from smrx.settlement.report_text import Text, as_json
from smrx.settlement.sums import sums
from smrx.sinks import Checkpoint
from smrx.sinks.csv_reader import CsvReader
from smrx.sinks.csv_sink import CsvSink
from smrx.sinks.rows import time_text
from smrx.sinks.sink_errors import SinkMismatch
from smrx.wire.codes import EventKind
from smrx.wire.records import EVENT_LAYOUTS, pack_symbol
from tests.settlement.market import market_events, oracle
from tests.sinks.conftest import make_place
from tests.sinks.ledger_market import DAY_1_NS, DAY_NS, hand_market
from tests.sinks.places import KINDS, run
from tests.sinks.stream import Events


def settle(path: Path, events: Events) -> Path:
    sink = CsvSink(path)
    sink.open("test")
    sink.write(events)
    trades = int((events["kind"] == EventKind.TRADE).sum())
    sink.commit(Checkpoint("test", len(events), int(events["command_sequence"][-1]), trades, 1))
    sink.close()
    return path


@pytest.fixture
def market(tmp_path: Path) -> Path:
    return settle(tmp_path / "market", hand_market())


def result(market: Path, capsys: pytest.CaptureFixture[str], *options: str) -> dict[str, list[dict[str, object]]]:
    assert smrx(["settle", "report", "--path", str(market), "--json", *options]) == 0
    found = json.loads(capsys.readouterr().out)
    assert isinstance(found, dict)
    return found


def short(rows: list[dict[str, object]], *columns: str) -> list[tuple[object, ...]]:
    return [tuple(row[column] for column in columns) for row in rows]


BALANCE = ("account", "asset", "opening", "deposits", "withdrawals", "bought", "sold", "fees", "closing")
NO_BTC, NO_USD = "0.00000000", "0.00"


def test_balances_of_all_accounts(market: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = result(market, capsys)
    assert short(found["balances"], *BALANCE) == [
        (0, "USD", NO_USD, NO_USD, NO_USD, NO_USD, NO_USD, "-4.75", "4.75"),
        (1, "BTC", NO_BTC, NO_BTC, NO_BTC, "0.31000000", "0.01000000", NO_BTC, "0.30000000"),
        (1, "USD", NO_USD, "10000.00", NO_USD, "300.00", "9500.00", "0.05", "799.95"),
        (2, "BTC", NO_BTC, "1.00000000", NO_BTC, NO_BTC, "0.30000000", NO_BTC, "0.70000000"),
        (2, "USD", NO_USD, NO_USD, "195.30", "9200.00", NO_USD, "4.70", "9000.00"),
        (2, "ETH", *["0." + 18 * "0", "0." + 17 * "0" + "1"], *["0." + 18 * "0"] * 4, "0." + 17 * "0" + "1"),
    ]
    assert (found["cluster"], found["event_sequence"], found["trades_settled"]) == ("test", 12, 3)


def test_turnover_and_fees(market: Path, capsys: pytest.CaptureFixture[str]) -> None:
    columns = ("instrument", "trades", "volume", "base_asset", "turnover", "taker_fees", "maker_fees", "quote_asset")
    assert short(result(market, capsys)["turnover"], *columns) == [
        ("BTC-USD", 3, "0.31000000", "BTC", "9500.00", "9.50", "-4.75", "USD")
    ]
    # Account 2 was taker once and maker once.
    assert short(result(market, capsys, "--account", "2")["turnover"], *columns) == [
        ("BTC-USD", 2, "0.30000000", "BTC", "9200.00", "6.20", "-1.50", "USD")
    ]
    # A trade with itself is one trade, and pays both fees.
    assert short(result(market, capsys, "--account", "1", "--from", "2026-01-03")["turnover"], *columns) == [
        ("BTC-USD", 1, "0.01000000", "BTC", "300.00", "0.30", "-0.15", "USD")
    ]


STATEMENT = ("kind", "asset", "amount", "balance", "reference")


def test_statement_of_an_account(market: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert short(result(market, capsys, "--account", "1")["statement"], *STATEMENT) == [
        ("OPENING", "BTC", None, NO_BTC, None),
        ("OPENING", "USD", None, NO_USD, None),
        ("DEPOSIT", "USD", "10000.00", "10000.00", 501),
        ("BUY", "BTC", "0.10000000", "0.10000000", 1),
        ("BUY", "USD", "-3000.00", "7000.00", 1),
        ("FEE", "USD", "-3.00", "6997.00", 1),
        ("BUY", "BTC", "0.20000000", "0.30000000", 2),
        ("BUY", "USD", "-6200.00", "797.00", 2),
        ("FEE", "USD", "3.10", "800.10", 2),
        ("BUY", "BTC", "0.01000000", "0.31000000", 3),
        ("BUY", "USD", "-300.00", "500.10", 3),
        ("FEE", "USD", "-0.30", "499.80", 3),
        ("SELL", "BTC", "-0.01000000", "0.30000000", 3),
        ("SELL", "USD", "300.00", "799.80", 3),
        ("FEE", "USD", "0.15", "799.95", 3),
        ("CLOSING", "BTC", None, "0.30000000", None),
        ("CLOSING", "USD", None, "799.95", None),
    ]


def test_period_opens_with_the_balance_before(market: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for period in (
        ("--from", "2026-01-02", "--to", "2026-01-02"),
        ("--from", "2026-01-02T00:00", "--to", "2026-01-03T00:00Z"),
    ):
        found = result(market, capsys, "--account", "2", "--instrument", "BTC-USD", *period)
        assert (found["from"], found["to"]) == ("2026-01-02T00:00:00.000000000Z", "2026-01-03T00:00:00.000000000Z")
        assert short(found["balances"], *BALANCE) == [
            (2, "BTC", "0.90000000", NO_BTC, NO_BTC, NO_BTC, "0.20000000", NO_BTC, "0.70000000"),
            (2, "USD", "3001.50", NO_USD, "195.30", "6200.00", NO_USD, "6.20", "9000.00"),
        ]
        assert short(found["statement"], *STATEMENT) == [
            ("OPENING", "BTC", None, "0.90000000", None),
            ("OPENING", "USD", None, "3001.50", None),
            ("SELL", "BTC", "-0.20000000", "0.70000000", 2),
            ("SELL", "USD", "6200.00", "9201.50", 2),
            ("FEE", "USD", "-6.20", "9195.30", 2),
            ("WITHDRAWAL", "USD", "-195.30", "9000.00", 504),
            ("CLOSING", "BTC", None, "0.70000000", None),
            ("CLOSING", "USD", None, "9000.00", None),
        ]


def test_venue_receives_the_fees(market: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = result(market, capsys, "--account", "0", "--from", "2026-01-02")
    assert short(found["statement"], *STATEMENT) == [
        ("OPENING", "USD", None, "1.50", None),
        ("FEE_INCOME", "USD", "3.10", "4.60", 2),
        ("FEE_INCOME", "USD", "0.15", "4.75", 3),
        ("CLOSING", "USD", None, "4.75", None),
    ]
    assert short(found["turnover"], "trades", "turnover", "taker_fees", "maker_fees") == [
        (2, "6500.00", "6.50", "-3.25")
    ], "the turnover of all accounts, of which it has the fees"


def test_instrument_filters_turnover_but_not_balances(market: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = result(market, capsys, "--instrument", "11")
    assert short(found["balances"], "account", "asset", "closing") == [
        (0, "USD", "4.75"),
        (1, "USD", "799.95"),
        (2, "USD", "9000.00"),
        (2, "ETH", "0.000000000000000001"),
    ]
    assert found["turnover"] == []


def test_report_as_csv(market: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "statement.csv"
    assert smrx(["settle", "report", "--path", str(market), "--account", "2", "--csv", str(file)]) == 0
    assert capsys.readouterr().out == f"15 lines written to {file}\n"
    data = file.read_bytes()
    assert data.count(b"\r\n") == data.count(b"\n") == 16
    with file.open(newline="") as opened:
        rows = list(csv.DictReader(opened))
    assert [row["amount"] for row in rows if row["kind"] == "FEE"] == ["1.50", "-6.20"]
    sell = next(row for row in rows if row["kind"] == "SELL" and row["event_sequence"] == "10")
    assert sell == {
        "time": "2026-01-02T00:00:00.000000009Z", "event_sequence": "10", "kind": "SELL", "asset": "BTC",
        "amount": "-0.20000000", "balance": "0.70000000", "instrument": "BTC-USD", "reference": "2", "account": "2",
        "asset_id": "1", "instrument_id": "10",
    }  # fmt: skip
    assert smrx(["settle", "report", "--path", str(market), "--csv", str(file)]) == 0
    with file.open(newline="") as opened:
        rows = list(csv.DictReader(opened))
    assert [(row["account"], row["asset"], row["closing"]) for row in rows][:2] == [
        ("0", "USD", "4.75"),
        ("1", "BTC", "0.30000000"),
    ]


def test_report_as_text(market: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert smrx(["settle", "report", "--path", str(market), "--account", "1", "--to", "2026-01-01"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "settled   cluster test, events 1 to 12, 3 trades"
    cells = [line.split() for line in lines]
    assert ["1", "USD", "0.00", "10000.00", "0.00", "0.00", "3000.00", "3.00", "6997.00"] in cells
    assert ["BTC-USD", "1", "0.10000000", "BTC", "3000.00", "3.00", "0.00", "USD"] in cells
    assert ["2026-01-01T00:00:00.000000008Z", "9", "FEE", "USD", "-3.00", "6997.00", "BTC-USD", "1"] in cells
    fees = [line for line in lines if "FEE" in line or "DEPOSIT " in line]
    assert len({line.index(".00 ") for line in fees}) == 1, "amounts stand below each other"


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (("--instrument", "ETH-BTC"), 2, "no settled instrument 'ETH-BTC'; known: BTC-USD, ETH-USD"),
        (("--from", "yesterday"), 2, "expected a time such as 2026-01-31"),
        (("--from", "2026-01-02", "--to", "2026-01-01"), 2, "--from must be before --to"),
        (("--sink", "csv"), 2, "cannot be combined"),
        (("--account", "-1"), 2, "-1"),
    ],
)
def test_invalid_queries_are_refused(
    options: tuple[str, ...], code: int, message: str, market: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert smrx(["settle", "report", "--path", str(market), *options]) == code
    assert message in capsys.readouterr().err


def test_missing_and_empty_settlement(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert smrx(["settle", "report", "--path", str(tmp_path)]) == Exit.SINK
    assert "is neither the directory of a sink nor a .csv file beside its checkpoint" in capsys.readouterr().err
    sink = CsvSink(tmp_path)
    sink.open("test")
    sink.close()
    assert smrx(["settle", "report", "--path", str(tmp_path)]) == 0
    assert capsys.readouterr().out == "nothing is settled yet\n"


def test_configured_sink_is_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settle(tmp_path / "books" / "trades.csv", hand_market())
    config = tmp_path / "cluster.toml"
    config.write_text(
        f'[settlement]\ndirectory = "{tmp_path}/books"\n[[settlement.sinks]]\nkind = "csv"\npath = "trades.csv"\n'
        "[[nodes]]\nid = 1\nport = 7110\n"
    )
    assert smrx(["--config", str(config), "settle", "report", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["trades_settled"] == 3
    assert smrx(["--config", str(config), "settle", "report", "--sink", "lmdb"]) == Exit.SINK
    assert "none of kind lmdb is configured; configured: csv" in capsys.readouterr().err


def test_changed_row_that_makes_a_debt_is_detected(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    events = hand_market()
    events.view(EVENT_LAYOUTS[EventKind.DEPOSITED])["amount"][5] -= 200_000  # the deposit that paid for it all
    market = settle(tmp_path / "m", events)
    assert smrx(["settle", "report", "--path", str(market)]) == Exit.SINK
    assert "account 1, asset USD: a closing balance of -120005 is negative" in capsys.readouterr().err


def test_closing_balances_equal_the_exchange(tmp_path: Path) -> None:
    """After a random market the report closes with the balances of the exchange."""
    machine, _ = oracle()
    settle(tmp_path, market_events())
    with closing(CsvReader(tmp_path)) as source:
        report = make_report(source, Query())
    expected = {(row[0], row[1]): row[2] + row[3] for row in machine.inspect.balances().tolist() if row[2] + row[3]}
    assert {key: balance.closing for key, balance in report.balances.items() if balance.closing} == expected


@pytest.mark.parametrize("seed", range(3))
def test_periods_add_up(tmp_path: Path, seed: int) -> None:
    """A period opens with what the one before closed with, and the sums of both are those of the whole."""
    events = market_events()
    settle(tmp_path, events)
    choose = random.Random(seed)
    times = sorted(int(choose.choice(events)["time_ns"]) + choose.choice((0, 1)) for _ in range(2))
    with closing(CsvReader(tmp_path)) as source:
        for account in (None, 1):
            whole = make_report(source, Query(account))
            first, second, third = (
                make_report(source, Query(account, None, *period))
                for period in ((0, times[0]), (times[0], times[1]), (times[1], 1 << 62))
            )
            for key, balance in whole.balances.items():
                parts = [r.balances[key] for r in (first, second, third) if key in r.balances]
                assert parts[-1].closing == balance.closing
                assert all(a.closing == b.opening for a, b in itertools.pairwise(parts))
                for name in ("deposits", "withdrawals", "bought", "sold", "fees"):
                    assert sum(getattr(part, name) for part in parts) == getattr(balance, name)
            assert first.statement + second.statement + third.statement == whole.statement
            for identity, turnover in whole.turnover.items():
                parts = [r.turnover[identity] for r in (first, second, third) if identity in r.turnover]
                assert sum(part.quote for part in parts) == turnover.quote


def test_statement_adds_up(tmp_path: Path) -> None:
    settle(tmp_path, market_events())
    with closing(CsvReader(tmp_path)) as source:
        for account in range(5):
            report = make_report(source, Query(account, begin_ns=1_700_000_000_100_000_000))
            lines = list(Text(report).statement())
            last = {line["asset"]: line["balance"] for line in lines if line["kind"] != "CLOSING"}
            assert last == {line["asset"]: line["balance"] for line in lines if line["kind"] == "CLOSING"}


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(-(1 << 62), 1 << 62)), max_size=60))
def test_sums_are_exact_beyond_64_bits(rows: list[tuple[int, int]]) -> None:
    expected: dict[int, int] = {}
    for key, amount in rows:
        expected[key] = expected.get(key, 0) + amount
    keys = np.array([key for key, _ in rows], np.uint64)
    assert dict(sums(keys, np.array([amount for _, amount in rows], np.int64))) == expected


POSITION = ("account", "instrument", "opening", "bought", "sold", "closing", "paid", "received", "fees")


def test_positions_of_all_accounts_by_instrument(market: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = result(market, capsys)
    assert short(found["positions"], *POSITION) == [
        (1, "BTC-USD", NO_BTC, "0.31000000", "0.01000000", "0.30000000", "9500.00", "300.00", "0.05"),
        (2, "BTC-USD", NO_BTC, NO_BTC, "0.30000000", "-0.30000000", NO_USD, "9200.00", "4.70"),
    ]
    assert short(found["positions"], "base_asset", "quote_asset", "instrument_id") == [("BTC", "USD", 10)] * 2
    assert result(market, capsys, "--instrument", "11")["positions"] == []


def test_period_opens_with_the_position_before(market: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = result(market, capsys, "--account", "2", "--from", "2026-01-02")
    assert short(found["positions"], *POSITION) == [
        (2, "BTC-USD", "-0.10000000", NO_BTC, "0.20000000", "-0.30000000", NO_USD, "6200.00", "6.20")
    ]
    found = result(market, capsys, "--account", "2", "--from", "2026-01-03")
    assert short(found["positions"], "opening", "closing", "fees") == [("-0.30000000", "-0.30000000", NO_USD)]


def test_positions_as_text(market: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert smrx(["settle", "report", "--path", str(market)]) == 0
    table = capsys.readouterr().out.split("\npositions\n")[1].split("\nturnover\n")[0]
    assert "closing" in table.splitlines()[0]
    assert "-0.30000000" in table


def test_times_have_nanoseconds() -> None:
    assert time_text(DAY_1_NS + DAY_NS + 1) == "2026-01-02T00:00:00.000000001Z"
    assert time_text(0) == "1970-01-01T00:00:00.000000000Z"


def test_rows_without_their_definition_are_refused(tmp_path: Path) -> None:
    class Undefined(CsvReader):
        def definitions(self) -> np.ndarray:  # type: ignore[type-arg]
            return super().definitions()[:3]

    settle(tmp_path, hand_market())
    with closing(Undefined(tmp_path)) as source, pytest.raises(SinkMismatch, match="definition of instrument 10"):
        make_report(source, Query())


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_sink_gives_the_same_report(
    kind: str, request: pytest.FixtureRequest, market: Path, tmp_path: Path
) -> None:
    place = make_place(request, kind, tmp_path / "place")
    run(sink := place.sink(), hand_market(), [(12, True)])
    sink.close()
    with closing(place.reader()) as reader, closing(CsvReader(market)) as source:
        for query in (Query(), Query(1), Query(0, 10), Query(2, None, DAY_1_NS + DAY_NS)):
            found, expected = (as_json(make_report(each, query)) for each in (reader, source))
            assert found["balances"] == expected["balances"] != []
            assert found["positions"] == expected["positions"]
            assert found["positions"] or query.account == 0, "the venue itself trades nothing"
            assert found["turnover"] == expected["turnover"] != []
            assert found.get("statement") == expected.get("statement")
        assert reader.name == sink.name


def test_path_of_any_sink_is_read(
    request: pytest.FixtureRequest, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for kind in ("csv", "lmdb", "parquet"):
        place = make_place(request, kind, tmp_path / kind)
        run(sink := place.sink(), hand_market(), [(12, True)])
        sink.close()
        assert short(result(place.path, capsys)["balances"], "closing")[0] == ("4.75",)


def test_equal_symbols_are_shown_with_ids(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    events = hand_market()
    events.view(EVENT_LAYOUTS[EventKind.ASSET_ADDED])["symbol"][2] = pack_symbol("USD")  # ETH, by another name
    rows = result(settle(tmp_path / "market", events), capsys)["balances"]
    assert {(row["asset"], row["asset_id"]) for row in rows} == {("BTC", 1), ("USD (2)", 2), ("USD (3)", 3)}
