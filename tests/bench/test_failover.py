"""The failover benchmark, run small on real processes, and its check, shown to find what it looks for."""

import pytest

from smrx import cli
from smrx.bench import failover_bench
from smrx.bench.failover_bench import Acknowledged, OrdersDiffer
from smrx.cli.exit_codes import Exit


def test_two_kills_and_a_hand_over_lose_nothing() -> None:
    figures = failover_bench.run(kills=2, transfers=1)
    for name in ("failover_ms", "transfer_gap_ms", "order_ms"):
        assert 0 < figures[name]["p50"] <= figures[name]["p99"] <= figures[name]["max"]
    # What takes an election takes longer than an order.
    assert figures["failover_ms"]["p50"] > figures["order_ms"]["p50"]
    assert figures["orders"]["acknowledged"] > 100
    assert (figures["orders"]["lost"], figures["orders"]["doubled"]) == (0, 0)
    assert (figures["conditions"]["kills"], figures["conditions"]["transfers"]) == (2, 1)


@pytest.mark.parametrize(
    ("found", "what"),
    [
        ([(1, 11), (3, 13)], "1 lost"),
        ([(1, 11), (2, 12), (3, 13), (2, 14)], "1 doubled"),
        ([(1, 11), (2, 99), (3, 13)], "1 held under another number"),
    ],
)
def test_an_order_that_is_lost_or_doubled_is_found(found: list[tuple[int, int]], what: str) -> None:
    acknowledged = [Acknowledged(name, 10 + name, 0, 1) for name in (1, 2, 3)]
    failover_bench.check(acknowledged, [(1, 11), (2, 12), (3, 13)])
    with pytest.raises(OrdersDiffer, match=what):
        failover_bench.check(acknowledged, found)


def test_an_order_whose_answer_was_forgotten_must_be_there_all_the_same() -> None:
    failover_bench.check([Acknowledged(1, 0, 0, 1)], [(1, 11)])
    with pytest.raises(OrdersDiffer, match="1 lost"):
        failover_bench.check([Acknowledged(1, 0, 0, 1)], [])


def test_nothing_to_measure_is_a_mistake(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["bench", "failover", "--kills", "0"]) == Exit.USAGE
    assert "found neither" in capsys.readouterr().err
