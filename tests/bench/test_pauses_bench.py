"""The benchmark of pauses: it counts turns, names the cause of the longest, and finds one that takes too long."""

import time
from typing import Any

import pytest

from smrx.bench import pauses_bench
from smrx.engine import Engine


def test_longest_turn_has_a_cause() -> None:
    figures = pauses_bench.run(4_000, 50)
    assert figures["turns"] > 4_000 // 256
    assert figures["cause"] in figures["parts"]
    assert {"apply", "reads", "heartbeat", "scrub", "memory", "snapshot", "listing"} <= set(figures["parts"])
    assert figures["longest_ms"] >= max(part["max_ms"] for part in figures["parts"].values())
    assert figures["snapshots"] >= 1
    assert figures["listings"] >= 1


def test_slow_turn_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """A heartbeat that works for 20 ms of processor time, once."""
    real = Engine.balance_digest
    slow = [True]

    def digest(engine: Engine) -> Any:
        end = time.thread_time() + 0.02
        while slow and time.thread_time() < end:
            pass
        slow.clear()
        return real(engine)

    monkeypatch.setattr(Engine, "balance_digest", digest)
    figures = pauses_bench.run(1_000, 5)
    assert figures["parts"]["heartbeat"]["max_ms"] >= 20
    assert figures["longest_ms"] >= 20
    assert not figures["is_below_mark"]
