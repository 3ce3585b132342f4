"""Snapshot files are complete or absent after a kill at any step; damage is reported and nothing is changed."""

import os
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import xxhash

from smrx.consensus import snapshot_files
from smrx.consensus.snapshot_files import COMPLETE, METADATA, Position, SnapshotError, SnapshotFiles, describe, verify

STATE = b"the state of everything" * 100


def files(folder: Path, **options: object) -> SnapshotFiles:
    return SnapshotFiles(folder, **{"cluster": "alpha", "node_id": 1} | options)  # type: ignore[arg-type]


def write(store: SnapshotFiles, sequence: int, state: bytes = STATE) -> snapshot_files.Stored:
    return store.write(Position(10 * sequence, 2, sequence, 0xABC), {"state": [state[:50], state[50:]], "events": []})


def whole(store: SnapshotFiles) -> list[int]:
    """Return the sequences of the valid snapshots; raises SnapshotError if a published one is invalid."""
    found, faults = store.readable()
    if faults:
        raise faults[0]
    for stored in found:
        verify(stored)
    return [stored.metadata.sequence for stored in found]


def test_snapshot_has_metadata_and_parts(tmp_path: Path) -> None:
    stored = write(files(tmp_path), 7)
    verify(stored)
    assert stored.path == tmp_path / "snapshot-7"
    assert (tmp_path / "latest").resolve() == stored.path
    assert stored.part("state") == STATE
    assert stored.part("events") == b""
    assert stored.part("nothing") is None
    snapshot = describe(stored.path).snapshot()
    assert (snapshot.index, snapshot.term, bytes(snapshot.data)) == (70, 2, STATE)
    assert snapshot.checksum == xxhash.xxh3_128_digest(STATE)


def test_two_newest_snapshots_are_kept(tmp_path: Path) -> None:
    store = files(tmp_path)
    for sequence in (1, 2, 3, 4):
        write(store, sequence)
    assert whole(store) == [3, 4]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["latest", "snapshot-3", "snapshot-4"]


def test_latest_written_snapshot_is_kept_even_if_older(tmp_path: Path) -> None:
    store = files(tmp_path)
    for sequence in (5, 6, 1):
        write(store, sequence)
    assert whole(store) == [1, 6]


def test_same_sequence_at_later_index_gets_another_name(tmp_path: Path) -> None:
    store = files(tmp_path)
    write(store, 5)
    again = store.write(Position(90, 3, 5, 0xABC), {"state": [STATE]})
    assert again.path.name == "snapshot-5-90"
    assert [stored.log_index for stored in store.readable()[0]] == [50, 90]


def test_same_state_can_be_written_repeatedly(tmp_path: Path) -> None:
    store = files(tmp_path)
    names = [write(store, 5).path.name for _ in range(5)]
    assert names[:3] == ["snapshot-5", "snapshot-5-50", "snapshot-5-50-2"]
    assert whole(store) == [5, 5]
    assert (tmp_path / "latest").resolve().name == names[-1]


def test_adopted_snapshot_names_its_new_cluster(tmp_path: Path) -> None:
    stored = write(files(tmp_path / "a"), 7)
    copy = files(tmp_path / "b", cluster="beta", node_id=2).adopt(stored)
    verify(copy)
    assert (copy.metadata.cluster, copy.metadata.node_id, copy.metadata.log_index) == ("beta", 2, 70)
    assert copy.part("state") == STATE


def test_abandoned_snapshot_leaves_no_files(tmp_path: Path) -> None:
    with pytest.raises(snapshot_files.Abandoned):
        files(tmp_path).write(Position(1, 1, 1, 0), {"state": [STATE]}, abandoned=lambda: True)
    assert not list(tmp_path.iterdir())


# Damage.


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("state", "its part state is not what was written"),
        (METADATA, f"{METADATA} is not what {COMPLETE} names"),
        (COMPLETE, f"{METADATA} is not what {COMPLETE} names"),
    ],
)
def test_flipped_bit_is_reported_with_its_part(tmp_path: Path, name: str, message: str) -> None:
    store = files(tmp_path)
    path = write(store, 7).path / name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(SnapshotError, match=message):
        whole(store)
    assert path.read_bytes() == bytes(data)


@pytest.mark.parametrize("name", ["state", "events", METADATA, COMPLETE])
def test_missing_file_is_reported(tmp_path: Path, name: str) -> None:
    store = files(tmp_path)
    (write(store, 7).path / name).unlink()
    with pytest.raises(SnapshotError, match="No such file"):
        whole(store)


def test_snapshot_of_another_cluster_is_refused(tmp_path: Path) -> None:
    write(files(tmp_path), 7)
    with pytest.raises(SnapshotError, match="expected a snapshot of cluster 'beta', found one of 'alpha'"):
        files(tmp_path, cluster="beta").readable()


def rewritten(path: Path, change: Callable[[bytes], bytes]) -> None:
    """Other metadata with a checksum of its own: what another version or a forger would have written."""
    raw = change((path / METADATA).read_bytes())
    (path / METADATA).write_bytes(raw)
    (path / COMPLETE).write_text(xxhash.xxh3_128_hexdigest(raw))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (b'"format": 1', b'"format": 2', "expected a snapshot of format 1, found format 2"),
        (b'"name": "state"', b'"name": "other"', "names no part 'state'"),
        (b'"log_index": 70', b'"log_index": "x"', "Expected `int`"),
        (b"{", b"[", "the snapshot is damaged"),
    ],
)
def test_metadata_of_another_schema_are_refused(tmp_path: Path, old: bytes, new: bytes, message: str) -> None:
    path = write(files(tmp_path), 7).path
    rewritten(path, lambda raw: raw.replace(old, new))
    with pytest.raises(SnapshotError, match=message):
        describe(path)


def test_part_outside_the_folder_is_refused(tmp_path: Path) -> None:
    path = write(files(tmp_path), 7).path
    rewritten(path, lambda raw: raw.replace(b'"name": "events"', b'"name": "../../x"'))
    with pytest.raises(SnapshotError, match="names a part outside it"):
        verify(describe(path))


# A kill, or a loss of power, at every step.


class Killed(BaseException):
    """The end of the process."""


class Steps:
    """Stops at the n-th step on the file system; on a loss of power, what was not synced is gone with it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, stop_at: int, *, power: bool, root: Path) -> None:
        self.left = stop_at
        self.power = power
        self.root = root
        self.unsynced: set[Path] = set()
        patch = monkeypatch.setattr
        for target, name in ((Path, "open"), (Path, "rename"), (Path, "symlink_to"), (Path, "mkdir"), (os, "fsync")):
            patch(target, name, self._counted(getattr(target, name), name))
        patch(shutil, "rmtree", self._counted(shutil.rmtree, "rmtree"))

    def _counted(self, original: Callable[..., object], name: str) -> Callable[..., object]:
        def step(*arguments: object, **options: object) -> object:
            self.left -= 1
            if self.left == 0:
                if self.power:
                    for path in self.unsynced:
                        if path.exists():
                            os.truncate(path, path.stat().st_size // 2)
                raise Killed
            if self.left < 0:
                raise Killed  # Nothing is cleaned up after a kill.
            result = original(*arguments, **options)
            if name == "open" and "x" in str(arguments[1:]):
                self.unsynced.add(Path(str(arguments[0])))
            if name == "rename":
                source, target = Path(str(arguments[0])), Path(str(arguments[1]))
                self.unsynced = {target / path.name if path.parent == source else path for path in self.unsynced}
            if name == "fsync":
                synced = os.readlink(f"/proc/self/fd/{arguments[0]}")
                self.unsynced.discard(Path(synced))
            return result

        return step


def killed_at_every_step(tmp_path: Path, *, power: bool) -> Iterator[tuple[int, SnapshotFiles]]:
    """Yield (step, what the next start finds) for a kill at each step of writing snapshot 3 beside 1 and 2."""
    for step in range(1, 200):
        folder = tmp_path / f"{'power' if power else 'kill'}-{step}"
        store = files(folder)
        write(store, 1)
        write(store, 2)
        with pytest.MonkeyPatch.context() as monkeypatch:
            Steps(monkeypatch, step, power=power, root=folder)
            try:
                write(store, 3)
            except Killed:
                done = False
            else:
                done = True
        yield step, store
        if done:
            return
    pytest.fail("writing never came to its end")


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc to know what was synced")
@pytest.mark.parametrize("power", [False, True])
def test_kill_at_any_step_leaves_old_or_new_snapshots(tmp_path: Path, power: bool) -> None:
    steps = 0
    for step, store in killed_at_every_step(tmp_path, power=power):
        store.clean()
        assert whole(store) in ([1, 2], [1, 2, 3], [2, 3]), f"step {step}"
        assert (store.folder / "latest").exists()
        assert not list(store.folder.glob(".writing-*"))
        write(store, 4)
        assert whole(store)[-1] == 4
        steps = step
    assert steps > 15


def all_whole(tmp_path: Path, *, power: bool) -> None:
    for _, store in killed_at_every_step(tmp_path, power=power):
        whole(store)


def _published_first(self: SnapshotFiles, aside: Path, metadata: snapshot_files.Metadata) -> Path:
    target = self.folder / f"snapshot-{metadata.sequence}"
    aside.rename(target)
    raw = snapshot_files.msgspec.json.encode(metadata)
    snapshot_files._write_durably(target / METADATA, raw)
    snapshot_files._write_durably(target / COMPLETE, xxhash.xxh3_128_hexdigest(raw).encode())
    return target


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc to know what was synced")
def test_early_rename_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SnapshotFiles, "_publish", _published_first)
    with pytest.raises(SnapshotError):
        all_whole(tmp_path, power=False)


def test_unsynced_part_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshot_files.os, "fsync", lambda descriptor: None)
    monkeypatch.setattr(Steps, "_counted", _without_sync(Steps._counted))
    with pytest.raises(SnapshotError):
        all_whole(tmp_path, power=True)


def _without_sync(original: Callable[..., Callable[..., object]]) -> Callable[..., Callable[..., object]]:
    def counted(self: Steps, function: Callable[..., object], name: str) -> Callable[..., object]:
        return (lambda descriptor: None) if name == "fsync" else original(self, function, name)

    return counted


def test_random_damage_to_any_file_is_detected(tmp_path: Path) -> None:
    chance = random.Random(5)
    store = files(tmp_path)
    path = write(store, 7).path
    for _ in range(60):
        name = chance.choice(["state", METADATA, COMPLETE])
        sound = (path / name).read_bytes()
        damaged = bytearray(sound)
        damaged[chance.randrange(len(sound) - (name == COMPLETE))] ^= 1 << chance.randrange(8)
        (path / name).write_bytes(damaged)
        with pytest.raises(SnapshotError):
            whole(store)
        (path / name).write_bytes(sound)
    assert whole(store) == [7]
