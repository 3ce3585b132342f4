"""One node in this process: what it writes in each durability mode, and what it restores after a restart."""

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest
import zmq

from smrx.config import Config, Limits
from smrx.consensus.disk_journal import FILE, JournalError
from smrx.consensus.recovery import MetaError, MetaStore
from smrx.consensus.snapshot_files import FOLDER
from smrx.consensus.storage import StorageFull
from smrx.local import LocalCluster
from smrx.node.reactor import Node
from smrx.node.rebuild import discard
from smrx.wire import frames
from smrx.wire.codes import CommandKind, OutcomeStatus
from smrx.wire.command_list import CommandList
from smrx.wire.records import COMMAND
from tests.consensus.harness import ENTRY_HEAD

DEADLINE_SECONDS = 20.0


def turn_until(node: Node, condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "the condition was not met before the deadline"
        node.turn()


class Alone:
    """A cluster of one in this process, and a client of it."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.node = Node(config, 1)
        turn_until(self.node, self._has_begun)
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._orders = self._context.socket(zmq.DEALER)
        self._orders.connect(config.node(1).orders_address)

    def _has_begun(self) -> bool:
        """Whether the node leads, and the exchange has the newest rules, which is its first command."""
        rules = self.node.state.rules()
        return self.node.replica.is_leader and rules.in_force == rules.newest

    def submit(self, commands: np.ndarray) -> np.ndarray:
        self._orders.send(frames.encode_commands(CommandList(commands)))
        turn_until(self.node, lambda: self._orders.poll(0))
        return frames.records(frames.decode(self._orders.recv())).copy()

    def close(self) -> None:
        self._context.destroy(linger=0)
        self.node.close()


@contextlib.contextmanager
def alone(config: Config) -> Iterator[Alone]:
    running = Alone(config)
    try:
        yield running
    finally:
        running.close()


def configuration(tmp_path: Path, **changes: object) -> Config:
    return msgspec.structs.replace(LocalCluster(tmp_path, nodes=1).config, **changes)


def opened_accounts(first: int, count: int) -> np.ndarray:
    """Return requests from `first` on of session 5; request 1 also opens it."""
    rows = np.zeros(count, COMMAND)
    rows["kind"], rows["session_id"] = CommandKind.OPEN_ACCOUNT, 5
    rows["request_id"] = rows["account"] = np.arange(first, first + count)
    if first == 1:
        opening = np.zeros(1, COMMAND)
        opening["kind"], opening["session_id"] = CommandKind.OPEN_SESSION, 5
        rows = np.concatenate([opening, rows])
    return rows


def written(config: Config) -> dict[str, tuple[int, int]]:
    """Return size and modification time of every file below the data directory."""
    found = {}
    for path in Path(config.data_dir).rglob("*"):
        status = path.lstat()
        found[str(path)] = (status.st_size, status.st_mtime_ns)
    return found


def test_commands_write_no_file_in_memory_mode(tmp_path: Path) -> None:
    with alone(configuration(tmp_path)) as exchange:
        exchange.submit(opened_accounts(1, 1))
        before = written(exchange.config)
        for request in range(2, 40):
            exchange.submit(opened_accounts(request, 1))
        assert written(exchange.config) == before


def test_command_is_written_before_its_reply_in_disk_mode(tmp_path: Path) -> None:
    with alone(configuration(tmp_path, durability="disk")) as exchange:
        exchange.submit(opened_accounts(1, 1))
        for request in range(2, 10):
            before = written(exchange.config)
            exchange.submit(opened_accounts(request, 1))
            assert written(exchange.config) != before


@pytest.mark.parametrize("snapshots", [False, True])
def test_restart_restores_outcomes_events_and_state(tmp_path: Path, snapshots: bool) -> None:
    limits = Limits(snapshot_commands=30) if snapshots else Limits()
    config = configuration(tmp_path, durability="disk", limits=limits)
    with alone(config) as exchange:
        answers = [exchange.submit(opened_accounts(request, 1)) for request in range(1, 101)]
        if snapshots:
            turn_until(exchange.node, lambda: exchange.node.storage.snapshots.oldest_index() > 20)
            turn_until(exchange.node, lambda: exchange.node.storage.journal.first_index > 20)
        position, digest = exchange.node.state.position(), exchange.node.state.log_digest
        events = exchange.node.state.events.range(1, exchange.node.state.events.newest)
        assert events is not None
    with alone(config) as exchange:
        machine = exchange.node.state
        assert (machine.position(), machine.log_digest) == (position, digest)
        again = machine.events.range(1, machine.events.newest)
        assert again is not None
        assert again.tobytes() == events.tobytes()
        # A repeated request gets its first outcome and is not applied again.
        repeated = exchange.submit(opened_accounts(60, 1))
        assert repeated.tobytes() == answers[59][-1:].tobytes()
        assert machine.position() == position
        assert exchange.submit(opened_accounts(101, 1))["status"].tolist() == [OutcomeStatus.ACCEPTED]


def test_restart_publishes_and_answers_nothing(tmp_path: Path) -> None:
    config = configuration(tmp_path, durability="disk")
    with alone(config) as exchange:
        exchange.submit(opened_accounts(1, 50))
    node = Node(config, 1)
    assert node.state.take_applied() == []
    # The switch to the newest rules, the session and its requests.
    assert node.state.engine.sequence == 52
    node.close()


def test_requested_snapshot_is_complete_in_both_modes(tmp_path: Path) -> None:
    for durability in ("memory", "disk"):
        config = configuration(tmp_path / durability, durability=durability)
        with alone(config) as exchange:
            exchange.submit(opened_accounts(1, 50))
            exchange.node.replica.compact()
            turn_until(exchange.node, lambda exchange=exchange: exchange.node.storage.snapshots.stored is not None)
            status = exchange.node.admin.status()
            assert (status.snapshot_sequence, status.snapshot_index) == (52, exchange.node.replica.applied_index)
            assert (config.node_dir(1) / FOLDER / "latest" / "COMPLETE").exists()


def test_memory_mode_refuses_an_existing_journal(tmp_path: Path) -> None:
    config = configuration(tmp_path, durability="disk")
    with alone(config) as exchange:
        exchange.submit(opened_accounts(1, 5))
    for _ in range(2):
        with pytest.raises(JournalError, match='a journal exists, but durability = "memory"'):
            Node(msgspec.structs.replace(config, durability="memory"), 1)
    with alone(config) as exchange:
        assert exchange.node.state.engine.sequence == 7


def test_node_of_memory_mode_starts_disk_mode_as_learner(tmp_path: Path) -> None:
    config = configuration(tmp_path)
    with alone(config) as exchange:
        exchange.submit(opened_accounts(1, 5))
    for _ in range(2):
        node = Node(msgspec.structs.replace(config, durability="disk"), 1)
        assert node.replica.role == "learner"
        node.close()


def test_node_that_cannot_write_its_term_keeps_no_entries_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(store: MetaStore) -> None:
        raise StorageFull("no room")

    config = node_with_history(tmp_path)
    node = Node(config, 1)
    last = node.replica.last_index
    node.meta.set_term(9, None)
    node.storage.journal.add(ENTRY_HEAD, last + 1, 9)
    monkeypatch.setattr(MetaStore, "sync", full)
    node.close()
    monkeypatch.undo()
    node = Node(config, 1)
    assert (node.replica.term, node.replica.last_index) == (1, last)
    node.close()


# Rebuild.


def node_with_history(tmp_path: Path) -> Config:
    config = configuration(tmp_path, durability="disk")
    with alone(config) as exchange:
        exchange.submit(opened_accounts(1, 5))
        exchange.node.replica.compact()
        turn_until(exchange.node, lambda: exchange.node.storage.snapshots.stored is not None)
    return config


def test_rebuild_discards_the_log_and_keeps_term_and_vote(tmp_path: Path) -> None:
    config = node_with_history(tmp_path)
    meta = MetaStore(config.node_dir(1), cluster=config.cluster, node_id=1)
    before = meta.incarnation
    meta.close()
    removed = discard(config, 1)
    assert [Path(path).name for path in removed] == [FILE, FOLDER]
    meta = MetaStore(config.node_dir(1), cluster=config.cluster, node_id=1)
    assert (meta.incarnation - before, meta.term, meta.vote, meta.joined) == (2, 1, 1, True)
    meta.close()
    node = Node(config, 1)
    assert node.replica.role == "learner"
    node.close()


def test_rebuild_replaces_damaged_meta_with_a_later_incarnation(tmp_path: Path) -> None:
    config = node_with_history(tmp_path)
    (config.node_dir(1) / "meta.lmdb").write_bytes(b"garbage" * 1000)
    with pytest.raises(MetaError, match="expected the meta data of a node"):
        Node(config, 1)
    assert "term and vote, which were damaged" in discard(config, 1)
    node = Node(config, 1)
    assert node.meta.incarnation > 1_000_000_000
    assert node.replica.role == "learner"
    node.close()


def test_rebuild_refuses_another_node_and_a_running_node(tmp_path: Path) -> None:
    config = node_with_history(tmp_path)
    before = written(config)
    with pytest.raises(MetaError, match="expected the data of cluster 'other'"):
        discard(msgspec.structs.replace(config, cluster="other"), 1)
    meta = MetaStore(config.node_dir(1), cluster=config.cluster, node_id=1)
    with pytest.raises(MetaError, match="expected to be the only process here"):
        discard(config, 1)
    meta.close()
    assert {path for path in before if FOLDER in path or FILE in path} <= set(written(config))
    with pytest.raises(MetaError, match="does not exist"):
        discard(msgspec.structs.replace(config, data_dir=str(tmp_path / "nowhere")), 1)
