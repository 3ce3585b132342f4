"""A verifier beside nodes that forget: what it has stays and is right, and another one begins where it cannot go on."""

import random
from pathlib import Path

import pytest

from cluster.torture import field as fields
from cluster.torture.bookkeeper import Bookkeeper
from cluster.torture.field import Field
from cluster.torture.streams import Listener
from smrx.client import Client
from smrx.config import Limits
from smrx.sim import workload

DEADLINE_S = 60.0


def trade(field: Field, seed: int) -> int:
    """Orders of two accounts, each an entry of the log or nearly so; the last event they caused."""
    chance = random.Random(seed)
    for account in (1, 2):
        with Client(field.config, account=account) as client:
            for _ in range(40):
                client.submit(workload.orders(chance, account, 2))
    return max(status.event_sequence for status in field.statuses().values())


def forget(field: Field) -> None:
    """Start every node again, one after the other; each learns the state, and nothing of how it came about."""
    for node in field.node_ids:
        field.kill(node)
        field.start_node(node)

        def is_member(node: int = node) -> bool:
            status = field.statuses().get(node)
            return status is not None and status.role in ("leader", "follower")

        field.wait_for(is_member, DEADLINE_S, f"node {node} to learn the state")


def test_what_no_node_holds_any_more_ends_a_verifier_and_another_one_joins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fields, "LIMITS", Limits(snapshot_commands=2_000, compaction_entries=10))
    said: list[str] = []
    with Listener() as listener, Field(tmp_path / "cluster", 3, "memory", listener) as field:
        field.wait_leader(DEADLINE_S)
        with Client(field.config, account=0) as client:
            client.submit(workload.setup([1, 2]))
        with Bookkeeper(field, said.append) as bookkeeper:
            before = trade(field, 1)
            field.wait_for(lambda: bookkeeper.committed >= before, DEADLINE_S, "everything to be settled")
            bookkeeper.kill()
            missed = trade(field, 2)
            forget(field)
            bookkeeper.start()

            def joined() -> bool:
                bookkeeper.look()
                return bookkeeper.committed >= missed

            field.wait_for(joined, DEADLINE_S, "another verifier to join")
            after = trade(field, 3)
            bookkeeper.finish(after)
            assert bookkeeper.committed >= after
    assert any(f"came to event {before} and ends: " in line for line in said)
    for life in field.lives:
        assert life.stream.ended.wait(DEADLINE_S)
    settled = bookkeeper.audit(field.lives)
    assert settled.verifiers == 2
    assert settled.sequence >= after
    assert settled.trades > 0
