"""`smrx cluster remove` against nodes that answer as the test says: a change that has to wait is asked for again."""

from collections.abc import Iterator
from contextlib import contextmanager

import msgspec
import pytest

from smrx.cli import member_commands, run
from smrx.cli.exit_codes import Exit
from smrx.client.admin_client import Ask
from smrx.config import Config
from smrx.wire.admin import AdminError, AdminErrorCode, AnyReply, AnyRequest, MembersReply, NodeStatus, RemoveMember
from tests.cli.test_cluster_status import Node

PENDING = AdminError(
    node_id=1, sequence=0, code=AdminErrorCode.UNAVAILABLE, message="the last change of members is not committed yet"
)


class Leader:
    """Node 1 of three, which removes a member once it was asked often enough."""

    def __init__(self, refusals: int, refusal: AdminError = PENDING) -> None:
        self.refusals, self.refusal = refusals, refusal
        self.asked = 0
        self.voters = [1, 2, 3]

    def ask(self, node_id: int, request: AnyRequest) -> AnyReply | None:
        if node_id != 1:
            return None
        if isinstance(request, RemoveMember):
            self.asked += 1
            if self.asked <= self.refusals:
                return self.refusal
            self.voters.remove(request.node_id)
            return MembersReply(node_id=1, sequence=0, log_index=1)
        reply = Node(range(2), role="leader").answer(1, request)
        return msgspec.structs.replace(reply, voters=self.voters) if isinstance(reply, NodeStatus) else reply


def remove(leader: Leader, monkeypatch: pytest.MonkeyPatch, *options: str) -> int:
    @contextmanager
    def client(config: Config, timeout_s: float, key: object) -> Iterator[Ask]:
        yield leader.ask

    monkeypatch.setattr(member_commands, "open_admin_client", client)
    return run(["cluster", "remove", "3", *options])


def test_removal_waits_for_an_earlier_change(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    leader = Leader(refusals=3)
    assert remove(leader, monkeypatch) == Exit.OK
    assert leader.asked == 4
    assert "node 3 is removed; members: 1, 2" in capsys.readouterr().out


def test_removal_fails_at_the_timeout(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    leader = Leader(refusals=1 << 30)
    assert remove(leader, monkeypatch, "--timeout", "0.05") == Exit.UNAVAILABLE
    assert leader.asked > 1
    assert "node 1: the last change of members is not committed yet" in capsys.readouterr().err


def test_refused_removal_is_not_tried_again(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    refused = msgspec.structs.replace(PENDING, code=AdminErrorCode.REFUSED, message="node 3 is the only voter")
    leader = Leader(refusals=1, refusal=refused)
    assert remove(leader, monkeypatch) == Exit.UNAVAILABLE
    assert leader.asked == 1
    assert "node 1: node 3 is the only voter" in capsys.readouterr().err
