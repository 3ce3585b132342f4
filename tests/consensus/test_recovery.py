"""The meta store: its data survive, and directories of other nodes are refused."""

import os
import stat
import subprocess
import sys
import time
from pathlib import Path

import lmdb
import msgspec
import pytest

from smrx.config import Config
from smrx.consensus import MetaError, MetaStore
from smrx.consensus.recovery import _FORMAT, DamagedMeta, recreate_meta
from smrx.node.rebuild import discard


def open_store(directory: Path, cluster: str = "alpha", node_id: int = 1) -> MetaStore:
    return MetaStore(directory / "node", cluster=cluster, node_id=node_id)


def test_new_store_is_empty(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    assert (store.term, store.vote, store.joined, store.initialized) == (0, None, False, False)
    store.close()


def test_incarnations_start_at_creation_time_and_exceed_known_ones(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    first = store.incarnation
    assert abs(first - time.time()) < 60
    store.exceed_incarnation(first + 7)
    assert store.incarnation == first + 8
    store.exceed_incarnation(first)
    assert store.incarnation == first + 8
    store.close()
    store = open_store(tmp_path)
    assert store.incarnation == first + 9
    store.close()


def test_synced_data_survive_a_restart(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    first = store.incarnation
    store.set_term(7, 3)
    store.set_joined()
    store.set_initialized()
    store.close()
    store = open_store(tmp_path)
    assert (store.incarnation - first, store.term, store.vote, store.joined, store.initialized) == (1, 7, 3, True, True)
    store.close()


def test_sync_without_changes_writes_nothing(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    transaction = store._environment.info()["last_txnid"]
    store.sync()
    store.set_term(0, None)
    store.sync()
    assert store._environment.info()["last_txnid"] == transaction
    store.close()


def test_directory_does_not_grow(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    for term in range(20):
        store.set_term(term, 1)
        store.sync()
    size = sum(path.stat().st_size for path in (tmp_path / "node").iterdir())
    for term in range(20, 200):
        store.set_term(term, 1)
        store.sync()
    assert sum(path.stat().st_size for path in (tmp_path / "node").iterdir()) == size
    store.close()


@pytest.mark.parametrize(
    ("cluster", "node_id", "message"),
    [
        ("beta", 1, "expected the data of cluster 'beta', found that of cluster 'alpha'"),
        ("alpha", 2, "expected the data of node 2, found that of node 1"),
    ],
)
def test_directory_of_another_node_is_refused(tmp_path: Path, cluster: str, node_id: int, message: str) -> None:
    store = open_store(tmp_path)
    first = store.incarnation
    store.close()
    with pytest.raises(MetaError, match=message):
        open_store(tmp_path, cluster, node_id)
    store = open_store(tmp_path)
    assert store.incarnation == first + 1
    store.close()


_HOLDER = """
import fcntl, sys
lock = open(sys.argv[1], "a")
fcntl.flock(lock, fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.read()
"""


def test_directory_locked_by_another_process_is_refused(tmp_path: Path) -> None:
    open_store(tmp_path).close()
    command = [sys.executable, "-c", _HOLDER, str(tmp_path / "node" / "lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        with pytest.raises(MetaError, match="expected to be the only process here"):
            open_store(tmp_path)
        process.communicate()
    open_store(tmp_path).close()


def test_second_store_in_one_process_is_refused(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    with pytest.raises(MetaError, match="only process"):
        open_store(tmp_path)
    store.close()
    open_store(tmp_path).close()


def test_meta_data_of_a_running_node_are_not_replaced(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    with pytest.raises(MetaError, match="only process"):
        recreate_meta(tmp_path / "node", cluster="alpha", node_id=1)
    assert (tmp_path / "node" / "meta.lmdb").exists()
    store.close()


def test_directory_of_a_node_is_for_its_user_only(tmp_path: Path) -> None:
    """It has the orders and balances of all accounts, and what others could write there is the node's state."""
    new, old = tmp_path / "new", tmp_path / "old"
    (old / "node").mkdir(parents=True)
    (old / "node").chmod(0o777)
    for directory in (new, old):
        open_store(directory).close()
        assert stat.S_IMODE((directory / "node").stat().st_mode) == 0o700


def test_directory_of_another_user_that_others_can_write_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = tmp_path / "node"
    directory.mkdir()
    directory.chmod(0o775)
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    with pytest.raises(MetaError, match="only its owner can write, found mode 0775"):
        open_store(tmp_path)
    directory.chmod(0o755)
    open_store(tmp_path).close()


def test_garbage_is_refused(tmp_path: Path) -> None:
    (tmp_path / "node").mkdir()
    (tmp_path / "node" / "meta.lmdb").write_bytes(b"garbage" * 2000)
    with pytest.raises(MetaError, match="expected the meta data of a node, found"):
        open_store(tmp_path)


def test_every_changed_byte_of_the_record_is_detected(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    life = store.incarnation
    store.set_term(7, 2)
    store.set_joined()
    store.set_membership((4, b"the members"))
    store.close()
    path = tmp_path / "node" / "meta.lmdb"
    whole = path.read_bytes()
    environment = lmdb.open(str(path), subdir=False, lock=False, readonly=True)
    with environment.begin() as transaction:
        record = bytes(transaction.get(b"meta"))
    environment.close()
    for at in range(len(record)):
        damaged = bytearray(record)
        damaged[at] ^= 0x04
        path.write_bytes(whole.replace(record, bytes(damaged)))
        with pytest.raises(MetaError):
            open_store(tmp_path)
    path.write_bytes(whole)
    store = open_store(tmp_path)
    assert (store.incarnation, store.term, store.vote, store.joined) == (life + 1, 7, 2, True)
    store.close()


def test_store_with_unknown_records_is_not_a_new_node(tmp_path: Path) -> None:
    open_store(tmp_path).close()
    path = tmp_path / "node" / "meta.lmdb"
    path.write_bytes(path.read_bytes().replace(b"meta", b"mete"))
    with pytest.raises(DamagedMeta, match="smrx node --id N --rebuild"):
        open_store(tmp_path)


@pytest.mark.parametrize("size", [0, 100, 4096, 8192, 9000])
def test_truncated_meta_data_are_refused(tmp_path: Path, size: int) -> None:
    store = open_store(tmp_path)
    store.set_term(7, 2)
    store.close()
    path = tmp_path / "node" / "meta.lmdb"
    assert path.stat().st_size > size
    os.truncate(path, size)
    with pytest.raises(DamagedMeta, match="smrx node --id N --rebuild"):
        open_store(tmp_path)
    assert path.stat().st_size == size


def test_record_without_checksum_is_upgraded(tmp_path: Path) -> None:
    open_store(tmp_path).close()
    environment = lmdb.open(str(tmp_path / "node" / "meta.lmdb"), subdir=False, lock=False)
    with environment.begin(write=True) as transaction:
        transaction.put(b"meta", msgspec.msgpack.encode([1, "alpha", 1, 4, 9, 3, True, 0, b""]))
        transaction.delete(b"checksum")
    environment.close()
    for life in (5, 6):
        store = open_store(tmp_path)
        assert (store.incarnation, store.term, store.vote, store.joined) == (life, 9, 3, True)
        store.close()


@pytest.mark.parametrize(
    "record",
    [
        b"\xc1",
        msgspec.msgpack.encode([1, "alpha", 1]),
        msgspec.msgpack.encode("text"),
        msgspec.msgpack.encode([1, "alpha", 1, 1, 0, None, False]).replace(b"alpha", b"\xe9lpha"),
    ],
)
def test_record_of_another_schema_is_refused(tmp_path: Path, record: bytes) -> None:
    open_store(tmp_path).close()
    environment = lmdb.open(str(tmp_path / "node" / "meta.lmdb"), subdir=False, lock=False)
    with environment.begin(write=True) as transaction:
        transaction.put(b"meta", record)
    environment.close()
    with pytest.raises(MetaError, match="expected the meta data of a node, found"):
        open_store(tmp_path)


def test_path_that_is_no_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "node").write_text("a file")
    with pytest.raises(MetaError, match="expected a directory this process can write"):
        open_store(tmp_path)


REFUSAL = f"expected meta data of format {_FORMAT}, found format {_FORMAT + 1}; run the version of smrx that wrote it"


def test_newer_meta_format_is_refused_and_unchanged(tmp_path: Path) -> None:
    config = Config(cluster="alpha", data_dir=str(tmp_path))
    directory = config.node_dir(1)
    MetaStore(directory, cluster="alpha", node_id=1).close()
    path = directory / "meta.lmdb"
    environment = lmdb.open(str(path), subdir=False, lock=False)
    with environment.begin(write=True) as transaction:
        # As a later version may write it: more fields, and others than these.
        newer = [_FORMAT + 1, "alpha", 1, {"lives": 3}, 7, 3, True, 0, b"", "more"]
        transaction.put(b"meta", msgspec.msgpack.encode(newer))
    environment.close()
    written = path.read_bytes()
    for attempt in (lambda: MetaStore(directory, cluster="alpha", node_id=1), lambda: discard(config, 1)):
        with pytest.raises(MetaError, match=REFUSAL) as told:
            attempt()
        assert not isinstance(told.value, DamagedMeta), "a rebuild would put another vote in its place"
        assert path.read_bytes() == written
