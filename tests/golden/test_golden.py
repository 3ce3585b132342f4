"""Every golden file is read, and holds what was recorded when it was made; damage does not go unnoticed."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from smrx.consensus.disk_journal import JournalError, entry_key
from smrx.consensus.snapshot_files import SnapshotError
from smrx.consensus.storage import LmdbStorage
from smrx.follower.follow_errors import FollowError
from smrx.sinks.lmdb_reader import LmdbReader
from smrx.sinks.sink_errors import SinkError, SinkMismatch
from tests.golden import golden_sets
from tests.golden.golden_sets import HERE, READERS, expected_of, numbers, unpack

MAX_BYTES = 200 << 10


def plain(found: Any) -> Any:
    """Return sums as JSON keeps them."""
    return json.loads(json.dumps(found))


def test_there_is_a_set_and_all_are_small() -> None:
    assert numbers()
    assert sum(path.stat().st_size for path in HERE.glob("*.tar.xz")) < MAX_BYTES


@pytest.mark.parametrize("kind", READERS)
@pytest.mark.parametrize("number", numbers())
def test_golden_file_is_read(number: str, kind: str, tmp_path: Path) -> None:
    unpack(number, tmp_path)
    assert plain(READERS[kind](tmp_path)) == expected_of(number)[kind]


def flip(path: Path, at: int) -> None:
    """Damage one byte of a file; a negative place counts from the end."""
    data = bytearray(path.read_bytes())
    data[at] ^= 0x10
    path.write_bytes(data)


def flip_in_lmdb(path: Path, found: bytes) -> None:
    """Damage the bytes of a record wherever a file has them."""
    data = path.read_bytes()
    assert found in data
    path.write_bytes(data.replace(found, found[:-1] + bytes([found[-1] ^ 0x10])))


def damage_journal(folder: Path) -> None:
    path = folder / "node-1" / "journal.lmdb"
    storage = LmdbStorage(path, readonly=True)
    value = list(storage.read(entry_key(0), entry_key(1 << 60)))[-1][1]
    storage.close()
    flip_in_lmdb(path, value)


def damage_sink(folder: Path) -> None:
    with LmdbReader(folder / "sink") as reader:
        rows = next(rows for rows in reader.trades() if len(rows)).copy()
    before = rows.tobytes()
    rows["quantity_lots"][-1] += 1
    path = folder / "sink" / "data.mdb"
    data = path.read_bytes()
    assert before in data
    path.write_bytes(data.replace(before, rows.tobytes()))


def each_part(name: str) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        for path in sorted((folder / "node-1" / "snapshots").glob(f"snapshot-*/{name}")):
            flip(path, path.stat().st_size // 2)

    return damage


#: What readers raise for damaged files.
ERRORS = (ValueError, AssertionError, JournalError, SnapshotError, SinkError, SinkMismatch, FollowError)
#: Reader and damage; each of them must raise or find something else.
DAMAGE: dict[str, tuple[str, Callable[[Path], None]]] = {
    "engine": ("engine", lambda folder: flip(folder / "engine.snapshot", -20)),
    "schema": ("engine", lambda folder: flip(folder / "engine.snapshot", 200)),
    "journal": ("node", damage_journal),
    "state part": ("node", each_part("state")),
    "other parts": ("node", each_part("[eo]*s")),
    "metadata": ("node", each_part("metadata.json")),
    "image": ("image", lambda folder: flip(folder / "state.image", -20)),
    "books": ("books", lambda folder: flip(next((folder / "books").glob("books-*.bin")), -20)),
    "books' journal": ("books", lambda folder: flip(next((folder / "books").glob("journal-*.bin")), -20)),
    "checkpoint": ("books", lambda folder: flip(folder / "books" / "checkpoint.json", 100)),
    "sink": ("sink", damage_sink),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damage_is_noticed(name: str, tmp_path: Path) -> None:
    kind, damage = DAMAGE[name]
    number = numbers()[-1]
    unpack(number, tmp_path)
    damage(tmp_path)
    try:
        found = plain(READERS[kind](tmp_path))
    except ERRORS:
        return
    assert found != expected_of(number)[kind]


def test_set_of_this_version_can_be_made_and_read(tmp_path: Path) -> None:
    """The writer stays fit for the next set; its formats describe one state."""
    golden_sets.write(tmp_path)
    found = {kind: read(tmp_path) for kind, read in READERS.items()}
    assert {found[kind]["state_hash"] for kind in ("engine", "node", "image")} == {found["engine"]["state_hash"]}
    assert found["image"]["books"] == found["books"]
    assert {found[kind]["trades"] for kind in ("engine", "node", "books", "sink")} == {found["engine"]["trades"]}
    assert found["engine"]["trades"] > 0
    assert found["node"]["snapshots"] != []


def test_set_that_exists_is_not_replaced(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.argv", ["golden_sets", numbers()[-1]])
    assert golden_sets.main() == 1
    assert "sets are only added" in capsys.readouterr().out
