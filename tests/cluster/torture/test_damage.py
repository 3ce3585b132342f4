"""Damage to files: always some, always said, and nowhere else."""

import random
from pathlib import Path

from cluster.torture.damage import damage


def files(directory: Path) -> dict[str, bytes]:
    return {
        path.relative_to(directory).as_posix(): path.read_bytes() for path in directory.rglob("*") if path.is_file()
    }


def test_one_file_is_damaged_and_named(tmp_path: Path) -> None:
    contents = {
        "journal.lmdb": bytes(range(256)) * 100,
        "meta.lmdb": bytes(range(256)) * 32,
        "snapshots/snapshot-7/state": b"state" * 1000,
        "snapshots/snapshot-7/COMPLETE": b"complete",
        "lock": b"nobody damages a lock",
    }
    hit = set()
    for seed in range(60):
        for name, data in contents.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        told = damage(tmp_path, random.Random(seed))
        (changed,) = (name for name, data in files(tmp_path).items() if data != contents[name])
        assert told is not None
        assert told.startswith(f"{changed}: ")
        hit.add(changed)
    assert hit == set(contents) - {"lock"}


def test_where_there_is_nothing_nothing_is_damaged(tmp_path: Path) -> None:
    (tmp_path / "lock").write_bytes(b"x")
    assert damage(tmp_path, random.Random(1)) is None
    assert files(tmp_path) == {"lock": b"x"}
