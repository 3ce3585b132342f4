"""The failover benchmark, run small on real processes, and its check of acknowledged orders."""

import pytest

from smrx import cli
from smrx.bench import failover_bench
from smrx.bench.failover_bench import Acknowledged, OrdersDiffer
from smrx.cli.exit_codes import Exit


def test_kills_and_transfer_lose_no_orders() -> None:
    figures = failover_bench.run(kills=2, transfers=1)
    for name in ("failover_ms", "transfer_gap_ms", "order_ms"):
        assert 0 < figures[name]["p50"] <= figures[name]["p99"] <= figures[name]["max"]
    # A failover includes an election, so it takes longer than an order.
    assert figures["failover_ms"]["p50"] > figures["order_ms"]["p50"]
    assert figures["orders"]["acknowledged"] > 100
    assert (figures["orders"]["lost"], figures["orders"]["doubled"]) == (0, 0)
    assert (figures["conditions"]["kills"], figures["conditions"]["transfers"]) == (2, 1)


@pytest.mark.parametrize(
    ("open_orders", "what"),
    [
        ([(1, 11), (3, 13)], "1 are lost"),
        ([(1, 11), (2, 12), (3, 13), (2, 14)], "1 are doubled"),
        ([(1, 11), (2, 99), (3, 13)], "1 are open with another order id"),
    ],
)
def test_lost_and_doubled_orders_are_found(open_orders: list[tuple[int, int]], what: str) -> None:
    acknowledged = [Acknowledged(number, 10 + number, 0, 1) for number in (1, 2, 3)]
    failover_bench.check_orders(acknowledged, [(1, 11), (2, 12), (3, 13)])
    with pytest.raises(OrdersDiffer, match=what):
        failover_bench.check_orders(acknowledged, open_orders)


def test_order_acknowledged_as_duplicate_must_be_open() -> None:
    failover_bench.check_orders([Acknowledged(1, 0, 0, 1)], [(1, 11)])
    with pytest.raises(OrdersDiffer, match="1 are lost"):
        failover_bench.check_orders([Acknowledged(1, 0, 0, 1)], [])


def test_run_without_kills_and_transfers_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["bench", "failover", "--kills", "0"]) == Exit.USAGE
    assert "both 0" in capsys.readouterr().err
