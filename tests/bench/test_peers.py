"""The comparison with other order books: the same tape, the same fills, and no speed for anything else."""

import platform
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from smrx.bench.peers import heap, liquibook_source, matching_engine, peer_comparison, peer_process
from smrx.bench.peers.calls import CALL, Absent
from smrx.bench.peers.script import script
from smrx.engine import Engine
from smrx.wire.codes import OutcomeStatus

BROKEN = {"broken": "tests.bench.broken"}
SMALL: dict[str, Any] = {"commands": 1_500, "repeats": 1, "limit_s": 20.0}


@pytest.fixture(scope="module")
def given() -> Any:
    return script("mixed", 1_500, 3)


def test_the_script_says_to_the_engine_what_it_says_to_the_others(given: Any) -> None:
    """Every command is accepted, nothing is left of a take, and cancels name the same orders on both sides."""
    engine = Engine()
    engine.apply(given.setup, 1)
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


def test_plain_references_and_every_tier_give_the_same_fills() -> None:
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
    assert [row["name"] for row in figures["peers"][5:]] == list(peer_comparison.UNUSABLE)


@pytest.mark.parametrize(
    ("fault", "identical", "said"),
    [
        ("newest", False, "no speed for other fills"),
        ("silent", False, "found none; no speed"),
        ("raising", None, "RuntimeError: no such order"),
        ("dying", None, "ended with 3"),
    ],
)
def test_a_peer_with_a_fault_gets_no_speed(
    fault: str, identical: bool | None, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SMRX_TEST_FAULT", fault)
    row = peer_comparison.run(**SMALL, peers=BROKEN)["peers"][3]
    assert row["name"] == "broken"
    assert (row["fills_identical"], row["commands_per_second"], row["ratio"]) == (identical, None, None)
    assert said in row["absent"]


def test_a_peer_that_hangs_is_stopped(given: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SMRX_TEST_FAULT", "hanging")
    with pytest.raises(Absent, match="did not come back within 1 s, and was stopped"):
        peer_process.apart(BROKEN["broken"], given.calls, given.filling, 0.5, around_s=0.5)


def test_a_slow_peer_is_judged_by_the_part_it_did(given: Any) -> None:
    expected = peer_process.play(heap.Peer(given.calls), len(given.calls), given.filling, 60.0).fills
    part = peer_process.play(heap.Peer(given.calls), len(given.calls), given.filling, 1e-9)
    assert part.done == 500 < len(given.calls) - given.filling
    assert part.fills.tolist() == peer_comparison.expected_until(given, expected, part.done).tolist()
    assert len(part.fills) < len(expected)


@pytest.mark.parametrize("name", [name for name, module in peer_comparison.PEERS.items() if "list" not in name])
def test_an_adapter_calls_its_peer_as_the_peer_wants_to_be_called(name: str, given: Any) -> None:
    """Whichever are installed here, with orders that rest: what they make of more is compared, not tested."""
    adds = given._replace(calls=given.calls[:300], filling=200)
    try:
        run = peer_process.apart(peer_comparison.PEERS[name], adds.calls, adds.filling, 10.0)
    except Absent as error:
        pytest.skip(str(error))
    assert (run.done, len(run.fills)) == (100, 0)
    assert run.version


def test_a_peer_that_needs_another_interpreter_says_which(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matching_engine, "_OLDEST", (99, 0))
    with pytest.raises(Absent, match=rf"need Python 99\.0 or newer, and this is {platform.python_version()}"):
        matching_engine.Peer(np.zeros(0, CALL))


def test_what_cannot_be_compared_is_said_without_waiting_for_it() -> None:
    rows = {row["name"]: row for row in peer_comparison.run(**SMALL, peers={})["peers"]}
    assert "spins" in rows["nanobook"]["absent"]
    assert {name for name, row in rows.items() if row["absent"]} == set(peer_comparison.UNUSABLE)
    assert not set(peer_comparison.UNUSABLE) & set(peer_comparison.PEERS)


def test_what_is_no_checkout_of_liquibook_is_said(tmp_path: Path) -> None:
    with pytest.raises(Absent, match=r"expected a checkout of liquibook with src/book/order_book\.h"):
        liquibook_source.play(tmp_path, np.zeros(0, CALL), 0)


@pytest.mark.skipif(shutil.which("c++") is None, reason="no C++ compiler here")
def test_a_checkout_that_does_not_compile_is_said(tmp_path: Path) -> None:
    header = tmp_path / "src/book/order_book.h"
    header.parent.mkdir(parents=True)
    header.write_text("#error not a library\n", encoding="ascii")
    with pytest.raises(Absent, match="cannot be built"):
        liquibook_source.play(tmp_path, np.zeros(0, CALL), 0)
