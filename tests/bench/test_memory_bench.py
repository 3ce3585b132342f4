"""The memory benchmark: memory is constant under a steady flow, and growth is found."""

from typing import Any

import numpy as np
import pytest

from smrx.bench import memory_bench
from smrx.bench.steady_flow import BLOCK, SteadyFlow
from smrx.engine import Engine
from smrx.wire.codes import CommandKind, OutcomeStatus

#: Resident memory of the interpreter itself that may come and go.
SLACK_BYTES = 4 << 20


def test_steady_flow_leaves_the_book_unchanged() -> None:
    flow = SteadyFlow(2_000)
    engine = Engine()
    setup = flow.setup()
    assert (engine.apply(setup.records, 1, setup.details).outcomes["status"] == OutcomeStatus.ACCEPTED).all()
    deep = len(engine.inspect.orders())
    for _ in range(3):
        assert (engine.apply(flow.next(), 1).outcomes["status"] == OutcomeStatus.ACCEPTED).all()
        assert len(engine.inspect.orders()) == deep == 600
    assert engine.trade_count == 3 * 200 * 3
    assert engine.check_invariants() == []


def test_memory_is_constant_under_sustained_load() -> None:
    """300,000 commands: without reuse of slots every thousand of them would need as much memory as all tables."""
    figures = memory_bench.run(30_000, 300_000, piece=1_000)
    early, late = figures["points"]
    assert late["table_bytes"] == early["table_bytes"]
    assert late["open_orders"] == early["open_orders"] == 300
    assert late["resident_bytes"] - early["resident_bytes"] < SLACK_BYTES
    assert figures["table_ratio"] == 1


class LeakingFlow(SteadyFlow):
    """Sends no cancels, so that the book grows like a pool that never frees a slot."""

    def next(self) -> Any:
        rows = super().next()
        kept = rows[rows["kind"] != CommandKind.CANCEL].copy()
        requests = {account: np.count_nonzero(kept["account"] == account) for account in (1, 2)}
        for account, count in requests.items():
            of_account = kept["account"] == account
            start = 3 * self.blocks if account == 1 else 0
            kept["request_id"][of_account] = start + (self._pieces_used - 1) * count + np.arange(1, count + 1)
        return kept


def test_growing_book_is_found() -> None:
    figures = memory_bench.run(30_000, 200_000, piece=1_000, flow=LeakingFlow(1_000))
    early, late = figures["points"]
    assert late["open_orders"] > 5 * early["open_orders"]
    assert figures["table_ratio"] > 2


@pytest.mark.parametrize("wrong", [{"first": 10, "last": 100}, {"first": 20_000, "last": 20_000}])
def test_invalid_command_counts_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="expected 10000 <= first < last"):
        memory_bench.run(**wrong)


@pytest.mark.parametrize("piece", [0, 5, BLOCK + 1])
def test_piece_must_be_a_multiple_of_a_block(piece: int) -> None:
    with pytest.raises(ValueError, match="multiple of 10"):
        SteadyFlow(piece)
