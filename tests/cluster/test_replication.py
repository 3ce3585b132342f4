"""When the replication test takes a damaged node for found, and when it does not."""

import msgspec
import pytest

from cluster.replication import how_named
from smrx.cli.survey import Agreement, Seen
from smrx.wire.admin import AgreementStatus, NodeStatus

FIRST = 501
STATUS = NodeStatus(
    node_id=2,
    sequence=FIRST,
    cluster="test",
    role="follower",
    term=1,
    leader_id=1,
    commit_index=9,
    applied_index=9,
    last_log_index=9,
    event_sequence=600,
    trades=3,
    state_hash=77,
    agreement=AgreementStatus(state="DIVERGED", sequence=FIRST),
    fenced="nodes 1 and 3 hold another state",
)


def seen(status: NodeStatus | None = STATUS, agreement: Agreement = Agreement.DIVERGED, at: int = FIRST) -> Seen:
    return Seen(node_id=2, agreement=agreement, at=at, lag=0, status=status)


def changed(state: str = "DIVERGED", sequence: int = FIRST, fenced: str | None = STATUS.fenced) -> NodeStatus:
    agreement = AgreementStatus(state=state, sequence=sequence)
    return msgspec.structs.replace(STATUS, agreement=agreement, fenced=fenced)


def test_hashes_and_the_node_itself_name_the_command() -> None:
    assert how_named(seen(), FIRST) == f"by its state hash: DIVERGED at {FIRST}"


def test_a_node_that_finds_its_memory_damaged_before_the_command_is_found_too() -> None:
    damaged = changed(sequence=FIRST - 1, fenced=f"memory damaged at or before command {FIRST - 1}")
    assert "check of its memory" in (how_named(seen(damaged, at=FIRST - 1), FIRST) or "")


@pytest.mark.parametrize(
    "found",
    [
        seen(status=None),
        seen(agreement=Agreement.AGREE),
        seen(changed(fenced=None)),
        seen(changed(state="AGREE")),
        seen(changed(sequence=FIRST + 1)),
        seen(changed(sequence=FIRST + 1), at=FIRST + 1),
        seen(changed(sequence=FIRST - 1), at=FIRST - 1),
        seen(changed(sequence=FIRST - 2, fenced="memory damaged"), at=FIRST - 2),
    ],
)
def test_anything_less_is_not_found(found: Seen) -> None:
    assert how_named(found, FIRST) is None
