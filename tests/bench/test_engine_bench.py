"""The engine benchmark on small tapes: it runs, reports what it measured, and its result is reproducible."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from smrx.bench import engine_bench as bench
from smrx.bench import tapes
from smrx.engine import Engine
from smrx.tape import generate, tape_file
from smrx.wire.codes import CommandKind, OutcomeStatus, Reason, TimeInForce
from tests import commands as make
from tests.tape import synthetic_recording


def test_report_has_all_fields() -> None:
    report = bench.run(commands=3_000)
    assert list(report)[:5] == ["commands", "seconds", "commands_per_second", "ns_per_command", "state_hash"]
    assert list(report)[5:] == ["tier", "tape", "batch", "events", "trades", "conditions"]
    assert report["commands"] == 3_000
    assert report["seconds"] > 0
    assert report["commands_per_second"] == pytest.approx(3_000 / report["seconds"], rel=0.01)
    assert (report["tier"], report["tape"], report["batch"]) == ("B", "mixed", 1_000)
    assert report["trades"] > 300
    assert report["events"] > 5_000
    conditions = report["conditions"]
    assert (conditions["hash"], conditions["ledger"], conditions["events"]) == ("on", "on", "on")
    assert conditions["batch_of_1_us"] > 0


def test_state_hash_depends_on_the_seed_and_not_on_batches() -> None:
    hashes = [
        bench.run(commands=2_000, seed=seed, batch=batch, repeats=2)["state_hash"]
        for seed, batch in ((3, 1_000), (3, 77), (3, 1), (4, 77))
    ]
    assert len(set(hashes[:3])) == 1
    assert hashes[3] != hashes[0]


def test_tier_a_trades_like_tier_b_without_a_hash() -> None:
    full, bare = (bench.run(commands=2_000, tier=tier) for tier in "BA")
    assert (bare["trades"], bare["events"]) == (full["trades"], full["events"])
    assert bare["state_hash"] == f"{0:016x}" != full["state_hash"]
    assert bare["conditions"]["hash"] == "off"


def test_tier_c_journals_each_batch_before_applying_it() -> None:
    if find_spec("smrx.consensus.disk_journal") is None:
        with pytest.raises(ValueError, match="tier C: this version has no journal on disk"):
            bench.run(commands=2_000, tier="C")
    else:
        kept, plain = (bench.run(commands=2_000, tier=tier, batch=100) for tier in "CB")
        assert kept["state_hash"] == plain["state_hash"]
        assert kept["conditions"]["tier"] == "everything on, journaled and synced"
    order: list[str] = []
    engine = Engine()
    engine.apply = lambda *_: order.append("applied")  # type: ignore[assignment, method-assign]
    bench.apply_all(engine, tapes.market(2), 5, lambda part: order.append(f"kept {len(part)}"))
    assert order[:4] == ["kept 5", "applied", "kept 5", "applied"]
    assert order[-2:] == ["kept 2", "applied"]


@pytest.mark.parametrize("name", tapes.SHAPES)
def test_generated_tape_has_its_shares(name: str) -> None:
    """Adds, cancels and takes have their shares; nearly all are accepted, and the book keeps its size."""
    shape = tapes.SHAPES[name]
    flow = tapes.generated(name, 20_000, 1)
    engine = Engine()
    assert (make.apply(engine, flow.before, 1).outcomes["status"] == OutcomeStatus.ACCEPTED).all()
    assert len(engine.inspect.orders()) == shape.open_orders
    result = make.apply(engine, flow.measured, 1)
    rejected = result.outcomes[result.outcomes["status"] == OutcomeStatus.REJECTED]
    assert len(rejected) < 0.02 * len(flow.measured.records)
    assert set(rejected["reason"]) <= {Reason.UNKNOWN_ORDER}
    placed = flow.measured.records["kind"] == CommandKind.PLACE
    takes = placed & (flow.measured.records["tif"] == TimeInForce.IOC)
    shares = [np.count_nonzero(kind) / len(flow.measured.records) for kind in (placed & ~takes, ~placed, takes)]
    assert shares == pytest.approx([1 - shape.cancels - shape.takes, shape.cancels, shape.takes], abs=0.02)
    # The last maker of a take is filled in part, and met again by the next take.
    assert engine.trade_count / np.count_nonzero(takes) == pytest.approx(shape.makers + 1, rel=0.2)
    assert len(engine.inspect.orders()) == pytest.approx(shape.open_orders, rel=0.25)
    assert engine.check_invariants() == []


def test_recorded_tape_is_replayed(tmp_path: Path) -> None:
    tape = generate.generate(commands=3_000, seed=5)
    tape_file.write(tmp_path / "day.tape", tape)
    report = bench.run(tape="real", files=[str(tmp_path / "day.tape")], commands=10_000)
    assert report["commands"] == 2_700
    engine = Engine()
    flow = tapes.recorded([str(tmp_path / "day.tape")])
    make.apply(engine, flow.before, 1)
    assert (make.apply(engine, flow.measured, 1).outcomes["status"] == OutcomeStatus.ACCEPTED).all()
    assert engine.trade_count == tape.trades


def test_lobster_day_is_a_tape_with_or_without_its_orderbook(tmp_path: Path) -> None:
    day = synthetic_recording.write(tmp_path, messages=400)
    for paths in ([day.messages, day.orderbook], [day.messages]):
        report = bench.run(tape="real", files=[str(path) for path in paths], commands=200, batch=7)
        assert report["commands"] == 200
        assert report["trades"] > 0
        assert day.messages.name.split("_")[0] in report["conditions"]["tape"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"tape": "other"}, {"commands": 0}, {"batch": 0}, {"repeats": 0}, {"tier": "D"},
        {"tape": "real"}, {"tape": "mixed", "files": ["day.tape"]}, {"tape": "real", "files": ["a", "b", "c"]},
    ],
)  # fmt: skip
def test_unsupported_options_raise(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="expected"):
        bench.run(**wrong)
