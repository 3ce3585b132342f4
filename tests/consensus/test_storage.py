"""The journal's file grows as needed, survives kills, and cannot kill its reader when damaged."""

import os
import random
import resource
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from smrx.consensus.disk_journal import FILE, DiskJournal, JournalError, check_readable
from smrx.consensus.storage import LmdbStorage, StorageError, StorageFailed
from tests.consensus.harness import ENTRY_HEAD


def journal(path: Path, **options: int) -> DiskJournal:
    return DiskJournal(LmdbStorage(path, **options), cluster="alpha", node_id=1, joined=False, where=path)


def fill(log: DiskJournal, entries: int, size: int = 500) -> None:
    for index in range(log.last_index + 1, log.last_index + 1 + entries):
        log.add(ENTRY_HEAD + index.to_bytes(8, "little").ljust(size, b"x"), index, 1)
        if index % 20 == 0:
            log.sync()
    log.sync()


def fill_one_by_one(log: DiskJournal) -> None:
    while log.last_index < 100_000:
        log.add(bytes(5000), log.last_index + 1, 1)
        log.sync()


def test_map_grows_when_full(tmp_path: Path) -> None:
    log = journal(tmp_path / FILE, map_bytes=1 << 16)
    fill(log, 1000, 5000)
    log.close()
    again = journal(tmp_path / FILE, map_bytes=1 << 16)
    assert again[1:] == log[1:]
    again.close()


def test_entry_larger_than_the_map_is_stored(tmp_path: Path) -> None:
    log = journal(tmp_path / FILE, map_bytes=1 << 16)
    fill(log, 1, 1 << 20)
    log.close()
    again = journal(tmp_path / FILE)
    assert again.last_index == 2
    again.close()


def test_file_does_not_grow_with_compaction(tmp_path: Path) -> None:
    log = journal(tmp_path / FILE)
    sizes = []
    for _ in range(12):
        fill(log, 200)
        log.compact(log.last_index - 50)
        sizes.append((tmp_path / FILE).stat().st_size)
    assert sizes[-1] <= 2 * sizes[2]
    log.close()


def test_truncated_file_is_refused(tmp_path: Path) -> None:
    log = journal(tmp_path / FILE)
    fill(log, 1000)
    log.close()
    os.truncate(tmp_path / FILE, (tmp_path / FILE).stat().st_size // 2)
    with pytest.raises(StorageError, match="the file was cut off"):
        journal(tmp_path / FILE)


def test_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    (tmp_path / FILE).write_bytes(b"not a database" * 1000)
    with pytest.raises(StorageError, match="expected the file of a journal, found"):
        journal(tmp_path / FILE)


def test_reader_does_not_create_a_journal(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="expected a journal, found none"):
        LmdbStorage(tmp_path / FILE, readonly=True)
    assert not list(tmp_path.iterdir())


def test_file_size_limit_is_a_full_disk_and_loses_nothing(tmp_path: Path) -> None:
    log = journal(tmp_path / FILE)
    fill(log, 100)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, limits[1]))
    try:
        with pytest.raises(
            StorageFailed, match=r"expected to write the journal, found: .*nothing acknowledged is lost"
        ):
            fill_one_by_one(log)
        synced = log.last_index - 1
        with pytest.raises(StorageFailed):
            log.sync()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    log.close()
    again = journal(tmp_path / FILE)
    assert again.last_index == synced
    again.close()


def test_flipped_bit_anywhere_is_refused_or_harmless(tmp_path: Path) -> None:
    path = tmp_path / FILE
    log = journal(path)
    fill(log, 60)
    log.close()
    sound = path.read_bytes()
    entries, chance, refused = log[1:], random.Random(3), 0
    for _ in range(60):
        damaged = bytearray(sound)
        damaged[chance.randrange(len(damaged))] ^= 1 << chance.randrange(8)
        path.write_bytes(damaged)
        try:
            check_readable(path)
            found = journal(path)
        except (JournalError, StorageError):
            refused += 1
            continue
        assert found[1:] == entries
        found.close()
    assert refused > 20


_WRITER = """
import random, sys
from smrx.consensus.disk_journal import DiskJournal
from smrx.consensus.storage import LmdbStorage
log = DiskJournal(LmdbStorage(sys.argv[1]), cluster="alpha", node_id=1, joined=False)
chance = random.Random(int(sys.argv[2]))
print("open", log.first_index, log.last_index, flush=True)
while True:
    for _ in range(chance.randrange(1, 30)):
        index = log.last_index + 1
        log.add(b"\\0\\1" + index.to_bytes(8, "little").ljust(chance.randrange(8, 3000), b"x"), index, 1)
    if chance.random() < 0.3:
        log.compact(max(log.first_index, log.last_index - chance.randrange(200)))
    log.sync()
    print("synced", log.first_index, log.last_index, flush=True)
"""


def test_kill_at_any_moment_keeps_synced_records(tmp_path: Path) -> None:
    path, chance = tmp_path / FILE, random.Random(4)
    for life in range(4):
        with subprocess.Popen([sys.executable, "-c", _WRITER, path, str(life)], stdout=subprocess.PIPE, text=True) as p:
            assert p.stdout is not None
            opened = p.stdout.readline().split()
            killer = threading.Timer(chance.uniform(0.01, 0.15), p.send_signal, [signal.SIGKILL])
            killer.start()
            told = [line.split() for line in p.stdout if line.endswith("\n")] or [opened]
            killer.join()
        log = journal(path)
        # One more sync may have returned than was reported.
        assert log.last_index >= int(told[-1][2])
        assert log.first_index >= int(told[-1][1])
        assert all(command[2:10] == index.to_bytes(8, "little") for command, index, _ in log[1:])
        log.close()
