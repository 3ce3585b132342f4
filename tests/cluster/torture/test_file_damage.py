"""Damage to files: exactly one file changes, and its name is reported."""

import random
from pathlib import Path

from cluster.torture.file_damage import damage_file


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
        "lock": b"a lock is never damaged",
    }
    hit = set()
    for seed in range(60):
        for name, data in contents.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        reported = damage_file(tmp_path, random.Random(seed))
        (changed,) = (name for name, data in files(tmp_path).items() if data != contents[name])
        assert reported is not None
        assert reported.startswith(f"{changed}: ")
        hit.add(changed)
    assert hit == set(contents) - {"lock"}


def test_directory_without_data_files_stays_unchanged(tmp_path: Path) -> None:
    (tmp_path / "lock").write_bytes(b"x")
    assert damage_file(tmp_path, random.Random(1)) is None
    assert files(tmp_path) == {"lock": b"x"}
