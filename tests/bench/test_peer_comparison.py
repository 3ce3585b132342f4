"""The comparison with other order books: all get the same tape, and only correct fills get a speed."""

import platform
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from smrx.bench.peers import heap_book, liquibook_source, matching_engine, peer_comparison, peer_process
from smrx.bench.peers.peer_calls import CALL, PeerUnavailable
from smrx.bench.peers.peer_tape import make_peer_tape
from smrx.engine import Engine
from smrx.wire.codes import OutcomeStatus

FAULTY = {"faulty": "tests.bench.faulty_peer"}
SMALL: dict[str, Any] = {"commands": 1_500, "repeats": 1, "limit_s": 20.0}


@pytest.fixture(scope="module")
def given() -> Any:
    return make_peer_tape("mixed", 1_500, 3)


def test_peer_tape_is_the_same_for_engine_and_peers(given: Any) -> None:
    """Every command is accepted, takers are filled completely, and cancels name the same orders in both forms."""
    engine = Engine()
    engine.apply(given.setup.records, 1, given.setup.details)
    first = engine.sequence + 1
    outcomes = engine.apply(given.commands, 1).outcomes
    assert (outcomes["status"] == OutcomeStatus.ACCEPTED).all()
    assert len(given.calls) == len(given.commands) > 1_400 + given.filling
    placed = ~given.calls["cancel"]
    assert given.calls["number"][placed].tolist() == list(range(1, np.count_nonzero(placed) + 1))
    numbers = {first + at: number for number, at in enumerate(np.flatnonzero(placed), 1)}
    cancelled = given.commands["order_id"][~placed].tolist()
    assert [numbers[order] for order in cancelled] == given.calls["number"][~placed].tolist()
    assert (outcomes["leaves_lots"][placed] + outcomes["cum_lots"][placed] == given.calls["lots"][placed]).all()


def test_plain_books_and_all_tiers_give_the_same_fills() -> None:
    plain = {name: peer_comparison.PEERS[name] for name in ("dict and heap", "sorted list")}
    figures = peer_comparison.run(**SMALL, peers=plain)
    measured = figures["peers"][:5]
    assert [row["fills_identical"] for row in measured] == [True] * 5
    assert figures["fills"] > 500
    for row in measured:
        assert row["commands"] == figures["commands"]
        assert row["commands_per_second"] > 0
        assert row["absent"] is None
        assert row["ratio"] == pytest.approx(measured[0]["commands_per_second"] / row["commands_per_second"], rel=0.1)
    assert measured[0]["ratio"] == 1
    assert measured[1]["ratio_tier_b"] == 1
    # A driver that is built is measured, too.
    assert [row["name"] for row in figures["peers"] if row["absent"]] == list(peer_comparison.UNUSABLE)


@pytest.mark.parametrize(
    ("fault", "identical", "reason"),
    [
        ("newest", False, "wrong fills: expected"),
        ("silent", False, "found none"),
        ("raising", None, "RuntimeError: no such order"),
        ("dying", None, "ended with exit code 3"),
    ],
)
def test_faulty_peer_gets_no_speed(
    fault: str, identical: bool | None, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SMRX_TEST_FAULT", fault)
    row = peer_comparison.run(**SMALL, peers=FAULTY)["peers"][3]
    assert row["name"] == "faulty"
    assert (row["fills_identical"], row["commands_per_second"], row["ratio"]) == (identical, None, None)
    assert reason in row["absent"]


def test_hanging_peer_is_killed(given: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SMRX_TEST_FAULT", "hanging")
    with pytest.raises(PeerUnavailable, match="did not end within 1 s and was killed"):
        peer_process.play_in_process(FAULTY["faulty"], given.calls, given.filling, 0.5, overhead_s=0.5)


def test_slow_peer_is_measured_by_the_calls_it_completed(given: Any) -> None:
    expected = peer_process.play(heap_book.Peer(given.calls), len(given.calls), given.filling, 60.0).fills
    part = peer_process.play(heap_book.Peer(given.calls), len(given.calls), given.filling, 1e-9)
    assert part.done == 500 < len(given.calls) - given.filling
    assert part.fills.tolist() == peer_comparison.expected_until(given, expected, part.done).tolist()
    assert len(part.fills) < len(expected)


@pytest.mark.parametrize("name", [name for name, module in peer_comparison.PEERS.items() if "list" not in name])
def test_adapter_runs_its_peer(name: str, given: Any) -> None:
    """Only resting orders: correct matching is checked by the comparison. Peers that are not installed are skipped."""
    adds = given._replace(calls=given.calls[:300], filling=200)
    try:
        run = peer_process.play_in_process(peer_comparison.PEERS[name], adds.calls, adds.filling, 10.0)
    except PeerUnavailable as error:
        pytest.skip(str(error))
    assert (run.done, len(run.fills)) == (100, 0)
    assert run.version


def test_peer_for_newer_python_is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matching_engine, "_OLDEST", (99, 0))
    message = rf"needs Python 99\.0 or newer, and this is Python {platform.python_version()}"
    with pytest.raises(PeerUnavailable, match=message):
        matching_engine.Peer(np.zeros(0, CALL))


def test_unusable_peers_are_listed_with_their_reason() -> None:
    rows = {row["name"]: row for row in peer_comparison.run(**SMALL, peers={})["peers"]}
    assert "loops forever" in rows["nanobook"]["absent"]
    assert {name for name, row in rows.items() if row["absent"]} == set(peer_comparison.UNUSABLE)
    assert not set(peer_comparison.UNUSABLE) & set(peer_comparison.PEERS)


def test_folder_without_liquibook_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PeerUnavailable, match=r"not a checkout of liquibook: src/book/order_book\.h is missing"):
        liquibook_source.play(tmp_path, np.zeros(0, CALL), 0)


@pytest.mark.skipif(shutil.which("c++") is None, reason="no C++ compiler here")
def test_checkout_that_does_not_compile_is_refused(tmp_path: Path) -> None:
    header = tmp_path / "src/book/order_book.h"
    header.parent.mkdir(parents=True)
    header.write_text("#error not a library\n", encoding="ascii")
    with pytest.raises(PeerUnavailable, match="cannot be built"):
        liquibook_source.play(tmp_path, np.zeros(0, CALL), 0)
