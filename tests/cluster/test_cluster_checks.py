"""The checks of the demo and the replication test: equal nodes and unchanged files pass, differences are found."""

from pathlib import Path

import msgspec
import pytest

from cluster.cluster_checks import CheckFailed, changed_files, differences, equal_logs, file_contents
from smrx.wire.admin import AnyReply, AnyRequest, LogDigestReply


def digest(node_id: int, **changed: int) -> LogDigestReply:
    equal = {"sequence": 90, "applied_index": 12, "log_digest": 5, "state_hash": 6, "event_sequence": 200, "trades": 7}
    return LogDigestReply(node_id=node_id, **(equal | changed))


def replies_by_node(*replies: LogDigestReply | None) -> "dict[int, LogDigestReply | None]":
    return dict(enumerate(replies, 1))


def check(nodes: "dict[int, LogDigestReply | None]") -> LogDigestReply:
    def ask(node_id: int, request: AnyRequest) -> AnyReply | None:
        return nodes[node_id]

    return equal_logs(ask, nodes, timeout=0.05)


def test_nodes_with_one_log_are_equal() -> None:
    assert check(replies_by_node(digest(1), digest(2), digest(3))).trades == 7


@pytest.mark.parametrize("name", ["log_digest", "sequence", "state_hash", "event_sequence", "trades"])
def test_difference_at_one_log_index_is_found(name: str) -> None:
    other = msgspec.structs.replace(digest(3), **{name: 1})
    assert differences([digest(1), digest(2), other])[0].startswith(f"{name} differs")
    with pytest.raises(CheckFailed, match=f"{name} differs"):
        check(replies_by_node(digest(1), digest(2), other))


def test_lagging_or_unreachable_node_fails() -> None:
    with pytest.raises(CheckFailed, match="one log index"):
        check(replies_by_node(digest(1), digest(2), digest(3, applied_index=11)))
    with pytest.raises(CheckFailed, match="one log index"):
        check(replies_by_node(digest(1), digest(2), None))


def test_changed_and_new_files_are_found(tmp_path: Path) -> None:
    (tmp_path / "node-1").mkdir()
    grown, rewritten = tmp_path / "node-1" / "grown", tmp_path / "node-1" / "rewritten"
    grown.write_bytes(bytes(1000))
    rewritten.write_bytes(bytes(1000))
    before = file_contents(tmp_path)
    assert changed_files(before, file_contents(tmp_path)) == []
    grown.write_bytes(bytes(1001))
    rewritten.write_bytes(bytes(999) + b"x")
    (tmp_path / "node-1" / "journal").write_bytes(b"x")
    assert changed_files(before, file_contents(tmp_path)) == [
        "node-1/grown: 1000 to 1001 bytes",
        "node-1/journal: new, 1 bytes",
        "node-1/rewritten: 1000 to 1000 bytes",
    ]
