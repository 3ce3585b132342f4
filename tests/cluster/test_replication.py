"""When the replication test counts a damaged node as reported."""

import msgspec
import pytest

from cluster.replication import is_reported
from smrx.cli.cluster_status import Agreement, NodeReport
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


SOUND = msgspec.structs.replace(
    STATUS, node_id=1, agreement=AgreementStatus(state="AGREE", sequence=FIRST), fenced=None, diverged={2: FIRST}
)


def victim(
    status: NodeStatus | None = STATUS, agreement: Agreement = Agreement.DIVERGED, at: int = FIRST
) -> NodeReport:
    return NodeReport(node_id=2, agreement=agreement, agreement_sequence=at, lag=0, status=status)


def other(diverged: dict[int, int] | None = None, fenced: str | None = None) -> NodeReport:
    status = msgspec.structs.replace(SOUND, diverged={2: FIRST} if diverged is None else diverged, fenced=fenced)
    return NodeReport(node_id=1, agreement=Agreement.AGREE, agreement_sequence=FIRST, lag=0, status=status)


def changed(state: str = "DIVERGED", sequence: int = FIRST, fenced: str | None = STATUS.fenced) -> NodeStatus:
    agreement = AgreementStatus(state=state, sequence=sequence)
    return msgspec.structs.replace(STATUS, agreement=agreement, fenced=fenced)


def test_damage_is_reported_by_hashes_the_node_and_the_others() -> None:
    assert is_reported([other(), victim()], 2, FIRST)


@pytest.mark.parametrize(
    "found",
    [
        victim(status=None),
        victim(agreement=Agreement.AGREE),
        victim(changed(fenced=None)),
        victim(changed(state="AGREE")),
        victim(changed(sequence=FIRST + 1)),
        victim(at=FIRST + 1),
    ],
)
def test_incomplete_report_of_damaged_node_fails(found: NodeReport) -> None:
    assert not is_reported([other(), found], 2, FIRST)


@pytest.mark.parametrize("found", [other({}), other({2: FIRST + 1}), other({3: FIRST}), other(fenced="in doubt")])
def test_incomplete_report_of_another_node_fails(found: NodeReport) -> None:
    assert not is_reported([found, victim()], 2, FIRST)
