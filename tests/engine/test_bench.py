"""The engine's benchmark, small: it runs, it measures what it says, and its result is the same as ever."""

import numpy as np
import pytest

from smrx.bench import engine as bench
from smrx.engine import Engine
from smrx.engine.codes import CommandKind, OutcomeStatus, TimeInForce


def test_it_reports_what_it_promises() -> None:
    report = bench.run(commands=3_000)
    assert list(report) == [
        "commands", "seconds", "commands_per_second", "ns_per_command", "state_hash", "conditions",
    ]  # fmt: skip
    assert report["commands"] == 3_000
    assert report["seconds"] > 0
    assert report["commands_per_second"] == pytest.approx(3_000 / report["seconds"], rel=0.01)
    conditions = report["conditions"]
    assert (conditions["hash"], conditions["ledger"], conditions["events"]) == ("on", "on", "on")
    assert conditions["trades"] > 300
    assert conditions["batch_of_1_us"] > 0


def test_the_same_seed_is_the_same_run_in_any_batches() -> None:
    hashes = [
        bench.run(commands=2_000, seed=seed, batch=batch)["state_hash"]
        for seed, batch in ((3, 1_000), (3, 77), (4, 77))
    ]
    assert hashes[0] == hashes[1] != hashes[2]


def test_the_tape_is_what_it_says() -> None:
    """Six in ten add, three cancel, one takes; nearly all are accepted, and the book stays as large as it was."""
    before, measured = bench.write_tape(20_000, 1)
    engine = Engine()
    assert (engine.apply(before, 1).outcomes["status"] == OutcomeStatus.ACCEPTED).all()
    result = engine.apply(measured, 1)
    assert np.count_nonzero(result.outcomes["status"] == OutcomeStatus.ACCEPTED) > 0.98 * len(measured)
    assert set(result.outcomes["reason"][result.outcomes["status"] == OutcomeStatus.REJECTED]) <= {61}
    placed = measured["kind"] == CommandKind.PLACE
    takes = placed & (measured["tif"] == TimeInForce.IOC)
    shares = [np.count_nonzero(kind) / len(measured) for kind in (placed & ~takes, ~placed, takes)]
    assert shares == pytest.approx([0.6, 0.3, 0.1], abs=0.02)
    assert len(engine.inspect.orders()) == pytest.approx(bench.OPEN_ORDERS, rel=0.2)
    assert engine.check_invariants() == []


@pytest.mark.parametrize("wrong", [{"tape": "other"}, {"commands": 0}, {"batch": 0}])
def test_what_it_cannot_measure_is_refused(wrong: dict[str, int | str]) -> None:
    with pytest.raises(ValueError, match="expected"):
        bench.run(**wrong)  # type: ignore[arg-type]
