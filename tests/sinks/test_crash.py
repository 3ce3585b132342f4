"""Killed at any step, a sink holds every trade once: everything it acknowledged, and no partial commit."""

import os
import signal
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import psycopg
import pytest

from smrx.sinks import contract, durable_files
from smrx.sinks.csv_sink import CsvSink
from smrx.sinks.csv_stream import CsvStream
from smrx.sinks.lmdb_sink import LmdbSink
from tests.sinks.conftest import make_place
from tests.sinks.crash import FAILED, die_in_it
from tests.sinks.places import KINDS, Place, run
from tests.sinks.stream import expected, stream

EVENTS = stream(120)
#: Small and large commits, and writes that are not committed at once.
STEPS = [(5, True), (40, False), (100, True), (101, True), (120, True)]
COMMITS = {0} | {end for end, commit in STEPS if commit}


def settle(place: Place, acknowledge: Callable[[int], None]) -> None:
    sink = place.sink()
    run(sink, EVENTS, STEPS, overlap=7, acknowledge=acknowledge)
    sink.close()


def check_after_crash(place: Place, acknowledged: int, look_first: bool) -> None:
    """Check what a dead process left: with a reader, with a sink that opens it, and after a sink has continued."""
    if reader_can_open(place):
        found, held = place.content()
        assert held in COMMITS
        assert held >= acknowledged
        assert found == expected(EVENTS, held)
    if look_first:
        sink = place.sink()
        held = run(sink, EVENTS, [])
        sink.close()
        assert held in COMMITS
        assert held >= acknowledged
        assert place.content() == (expected(EVENTS, held), held)
    settle(place, lambda _: None)
    assert place.content() == (expected(EVENTS, len(EVENTS)), len(EVENTS))


def reader_can_open(place: Place) -> bool:
    """Return whether the process lived long enough to create its place."""
    try:
        place.reader().close()
    except contract.SinkMismatch:
        raise
    except durable_files.SinkError:
        return False
    return True


def crash_everywhere(
    request: pytest.FixtureRequest, kind: str, tmp_path: Path, every: int = 1, power_loss: bool = False
) -> int:
    """Die at each `every`-th step of a whole run, each time in a place of its own; return the number of runs."""
    for die_at in range(0, 100_000, every):
        place = make_place(request, kind, tmp_path / f"{die_at}")
        place.path.mkdir()
        died, acknowledged = die_in_it(lambda acknowledge: settle(place, acknowledge), die_at, place.path, power_loss)  # noqa: B023
        # Opening removes leftovers, so both orders are checked.
        check_after_crash(place, acknowledged, look_first=die_at % 4 < 2)
        if not died:
            assert acknowledged == len(EVENTS)
            return die_at // every
    raise AssertionError("it never came to its end")


@pytest.mark.parametrize(
    ("kind", "every"), [(kind, {"csv rotated": 3, "parquet": 5, "postgresql": 2}.get(kind, 1)) for kind in KINDS]
)
def test_kill_at_any_step_keeps_every_trade_once(
    kind: str, every: int, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    # Compile and connect before the first fork.
    warm = make_place(request, kind, tmp_path / "warm")
    settle(warm, lambda _: None)
    assert crash_everywhere(request, kind, tmp_path, every) >= 15


@pytest.mark.parametrize(("kind", "every"), [("csv", 1), ("csv rotated", 2), ("parquet", 4)])
def test_power_loss_at_any_step_keeps_every_trade_once(
    kind: str, every: int, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    assert crash_everywhere(request, kind, tmp_path, every, power_loss=True) >= 15


def _no_sync_of_rows(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(CsvStream, "sync", lambda self: None)


def _no_sync_of_names(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("smrx.sinks.durable_files.sync_directory", lambda path: None)
    patch.setattr("smrx.sinks.csv_sink.sync_directory", lambda path: None)


def _rest_is_kept(patch: pytest.MonkeyPatch) -> None:
    real = CsvStream._reopen

    def reopen(self: CsvStream, path: Path) -> None:
        self.state.bytes = max(self.state.bytes, path.stat().st_size)
        real(self, path)

    patch.setattr(CsvStream, "_reopen", reopen)


def _checkpoint_first(patch: pytest.MonkeyPatch) -> None:
    real = CsvSink._replace_checkpoint
    sync = CsvStream.sync

    def early(self: CsvStream) -> None:
        """Do nothing: sync() writes the rows, after the checkpoint."""

    def late(self: CsvSink, checkpoint: contract.Checkpoint) -> None:
        real(self, checkpoint)
        for written in self._streams:
            sync(written)

    patch.setattr(CsvStream, "sync", early)
    patch.setattr(CsvSink, "_replace_checkpoint", late)


def _two_transactions(patch: pytest.MonkeyPatch) -> None:
    """LMDB: the rows first, the checkpoint in another transaction."""
    real = LmdbSink._commit

    def commit(self: LmdbSink, checkpoint: contract.Checkpoint) -> bool:
        rows, put = self._waiting, LmdbSink._put

        def rows_only(sink: LmdbSink, transaction: Any, name: bytes, *more: Any, **options: Any) -> None:
            if name != b"meta":
                put(sink, transaction, name, *more, **options)

        with pytest.MonkeyPatch.context() as inner:
            inner.setattr(LmdbSink, "_put", rows_only)
            if not real(self, checkpoint):
                return False
        self._waiting = []
        done = real(self, checkpoint)
        self._waiting = rows
        return done

    patch.setattr(LmdbSink, "_commit", commit)


def _no_transaction(patch: pytest.MonkeyPatch) -> None:
    """PostgreSQL: each statement in its own transaction."""
    patch.setattr(psycopg.Connection, "transaction", lambda self: nullcontext())


def _manifest_in_place(patch: pytest.MonkeyPatch) -> None:
    """Parquet: files are written in place, not beside and then renamed."""

    def replace(path: Path, data: bytes) -> None:
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        durable_files.write_all(file, data)
        os.fsync(file)
        os.close(file)
        durable_files.sync_directory(path.parent)

    patch.setattr("smrx.sinks.parquet_sink.replace", replace)


@pytest.mark.parametrize(
    ("kind", "fault"),
    [
        ("csv", _no_sync_of_rows),
        ("csv", _no_sync_of_names),
        ("csv", _rest_is_kept),
        ("csv", _checkpoint_first),
        ("lmdb", _two_transactions),
        ("postgresql", _no_transaction),
        ("parquet", _manifest_in_place),
    ],
)
def test_sink_without_one_of_the_rules_fails_the_check(
    kind: str,
    fault: Callable[[pytest.MonkeyPatch], None],
    request: pytest.FixtureRequest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fault(monkeypatch)
    with pytest.raises((AssertionError, contract.SinkMismatch)):
        crash_everywhere(request, kind, tmp_path, power_loss=kind == "csv")


def _commit_each_event(place: Place, message: int) -> None:
    run(
        place.sink(),
        EVENTS,
        [(end, True) for end in range(1, len(EVENTS) + 1)],
        acknowledge=lambda end: tell(message, end),
    )
    signal.pause()


def tell(pipe: int, end: int) -> None:
    os.write(pipe, end.to_bytes(8, "little"))


@pytest.mark.parametrize("kind", ["lmdb", "postgresql"])
def test_kill_at_any_moment_keeps_every_trade_once(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    """Between steps, too: the process is killed from outside, a little later each time."""
    place = make_place(request, kind, tmp_path / "place")
    held = 0
    for turn in range(8):
        reader, writer = os.pipe()
        process = os.fork()
        if process == 0:
            try:
                os.close(reader)
                _commit_each_event(place, writer)
            finally:
                os._exit(FAILED)
        os.close(writer)
        # After so many commits were reported, in the middle of a later one.
        last = held
        while last < min(held + 1 + 3 * turn, len(EVENTS)):
            message = os.read(reader, 8)
            assert len(message) == 8, "the process exited by itself"
            last = int.from_bytes(message, "little")
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)
        os.close(reader)
        found, held = place.content()
        assert held >= last
        assert found == expected(EVENTS, held)
    settle(place, lambda _: None)
    assert place.content() == (expected(EVENTS, len(EVENTS)), len(EVENTS))
