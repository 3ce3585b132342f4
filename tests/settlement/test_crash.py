"""Every trade is stored once, wherever the process dies: at each system call, or by SIGKILL at any moment."""

import csv
import os
import random
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.dataset  # noqa: F401 - once here instead of in every process that is killed
import pytest
from numpy.typing import NDArray

from smrx.follower import checkpoint_store, settler
from smrx.settlement.ledger import Ledger
from smrx.settlement.readers import Reader
from smrx.settlement.settlement_run import make_settler
from smrx.sinks import Checkpoint
from smrx.sinks.contract import Sink
from smrx.sinks.csv_reader import CsvReader
from smrx.sinks.csv_sink import CsvSink
from smrx.sinks.lmdb_reader import LmdbReader
from smrx.sinks.lmdb_sink import LmdbSink
from smrx.sinks.parquet_reader import ParquetReader
from smrx.sinks.parquet_sink import ParquetSink
from smrx.sinks.rows import Tables
from smrx.wire.codes import EventKind
from tests.settlement.market import market_events

Events = NDArray[np.void]

CRASHES = 110
KILLS = 100
#: Of a verifier with several sinks at once.
KILLS_OF_SEVERAL = 20
#: What the verifier does to files, and where it can die.
CALLS = ("write", "fsync", "replace", "ftruncate", "open", "close", "unlink")


class Died(BaseException):
    """Simulates the death of the process: nothing after it runs."""


def settle_on(directory: Path, events: Events, chance: random.Random, sinks: Sequence[Sink] = ()) -> None:
    """Do what `smrx settle run` does with released events: resume, and settle in pieces with a checkpoint each."""
    verifier = make_settler("local", str(directory / "books"), sinks or [CsvSink(directory)])
    try:
        verifier.open()
        rest = events[verifier.projection.sequence :]
        while len(rest):
            count = whole_commands(rest, chance.randrange(1, 400))
            verifier.settle(rest[:count], lambda command: 7)
            verifier.commit(lambda command: 7)
            rest = rest[count:]
    finally:
        verifier.close()


def whole_commands(events: Events, count: int) -> int:
    """Return a number of events near `count` after which a command ends."""
    commands = events["command_sequence"]
    return int(np.searchsorted(commands, commands[min(count, len(events)) - 1], side="right"))


def check_trades(directory: Path, events: Events) -> None:
    """Check that the file holds every trade once, in order."""
    expected = events[events["kind"] == EventKind.TRADE]
    with (directory / "settled_trades.csv").open(newline="") as file:
        found = [(int(row["match_id"]), int(row["event_sequence"])) for row in csv.DictReader(file)]
    assert found == list(zip(expected["match_id"].tolist(), expected["sequence"].tolist(), strict=True))


def check(directory: Path, events: Events) -> None:
    """Check that the file holds every trade once, in order, and that the books are those of the whole stream."""
    check_trades(directory, events)
    verifier = make_settler("local", str(directory / "books"), [CsvSink(directory)])
    verifier.open()
    whole = Ledger()
    whole.post(events)
    assert verifier.projection.balances() == whole.balances()
    assert verifier.projection.order_leaves() == whole.order_leaves()
    verifier.close()


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make checkpoints and projection files so often that crashes hit each kind."""
    monkeypatch.setattr(settler, "TRADES_PER_CHECKPOINT", 7)
    monkeypatch.setattr(checkpoint_store, "_MIN_JOURNAL_BYTES", 64 << 10)


@pytest.fixture
def dying(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Arm a crash at the nth system call from now: before it, or after a part of it. 0 disarms.

    Disarming closes the files that were opened since: the end of a process closes them, too.
    """
    left = [0]
    files: set[int] = set()
    real_close = os.close

    def wrap(name: str) -> None:
        original = getattr(os, name)

        def call(*arguments: Any, **options: Any) -> Any:
            if left[0]:
                left[0] -= 1
                if left[0] == 0:
                    if name == "write":
                        original(arguments[0], memoryview(arguments[1])[: len(arguments[1]) // 2])
                    raise Died(name)
            result = original(*arguments, **options)
            if name == "open":
                files.add(result)
            elif name == "close":
                files.discard(arguments[0])
            return result

        monkeypatch.setattr(os, name, call)

    for name in CALLS:
        wrap(name)

    def arm(calls: int) -> None:
        left[0] = calls
        while files and not calls:
            real_close(files.pop())

    return arm


@pytest.mark.usefixtures("often")
def test_crash_at_any_system_call_keeps_every_trade_once(tmp_path: Path, dying: Callable[[int], None]) -> None:
    events = market_events()
    crashes = 0
    for seed in range(1000):
        if crashes >= CRASHES:
            return
        chance, directory = random.Random(seed), tmp_path / str(seed)
        while True:
            dying(chance.randrange(1, 150))
            try:
                settle_on(directory, events, chance)
            except Died:
                crashes += 1
                dying(0)
            else:
                dying(0)
                break
        check(directory, events)
    pytest.fail(f"expected {CRASHES} crashes, found {crashes}")


def test_repeated_kills_keep_every_trade_once(tmp_path: Path) -> None:
    events = market_events()
    kills = 0
    for seed in range(1000):
        if kills >= KILLS:
            return
        chance, directory = random.Random(seed), tmp_path / str(seed)
        while killed(lambda: settle_on(directory, events, chance), chance.uniform(0.0, 0.06)):  # noqa: B023
            kills += 1
        check(directory, events)
    pytest.fail(f"expected {KILLS} kills, found {kills}")


def several(directory: Path) -> list[Sink]:
    """Return three kinds of sinks, with files so short that kills hit their creation."""
    return [
        CsvSink(directory / "csv"),
        LmdbSink(directory / "lmdb"),
        ParquetSink(directory / "parquet", rotate_trades=50),
    ]


def trades_of(reader: Reader) -> list[tuple[int, int]]:
    """Return (match id, event) of every trade a sink holds, in its order."""
    with closing(reader):
        batches = [batch for batch in reader.trades(None) if len(batch)]
    return [pair for batch in batches for pair in batch[["match_id", "event_sequence"]].tolist()]


@pytest.mark.usefixtures("often")
def test_repeated_kills_keep_several_sinks_equal(tmp_path: Path) -> None:
    events = market_events()
    events = events[: whole_commands(events, 1500)]
    expected = events[events["kind"] == EventKind.TRADE][["match_id", "sequence"]].tolist()
    kills = 0
    for seed in range(1000):
        if kills >= KILLS_OF_SEVERAL:
            return
        chance, directory = random.Random(seed), tmp_path / str(seed)

        def work(directory: Path = directory, chance: random.Random = chance) -> None:
            settle_on(directory, events, chance, several(directory))

        # Longer each time: a process needs some time to open its sinks before it makes progress.
        most = 0.2
        while killed(work, chance.uniform(0.0, most)):
            kills += 1
            most *= 1.1
        for reader in (
            CsvReader(directory / "csv"),
            LmdbReader(directory / "lmdb"),
            ParquetReader(directory / "parquet"),
        ):
            assert trades_of(reader) == expected
    pytest.fail(f"expected {KILLS_OF_SEVERAL} kills, found {kills}")


def killed(work: Callable[[], None], seconds: float) -> bool:
    """Do work in another process and kill that after some time; return whether it was still working."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    if os.WIFEXITED(status):
        assert os.WEXITSTATUS(status) == 0, "the verifier ended by itself, with an error"
        return False
    return True


class Naive:
    """A sink that appends everything it is given."""

    name = "naive"

    def __init__(self, directory: Path) -> None:
        self.path = directory / "settled_trades.csv"

    def open(self, cluster: str) -> None:
        if not self.path.exists():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.write_text("match_id,event_sequence\n")

    def begin(self, checkpoint: Checkpoint, rows: Tables) -> None:
        """Ignore the image."""

    def write(self, events: Events) -> None:
        trades = events[events["kind"] == EventKind.TRADE]
        with self.path.open("a") as file:
            for trade in trades:
                file.write(f"{trade['match_id']},{trade['sequence']}\n")

    def commit(self, checkpoint: Checkpoint) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""


@pytest.mark.parametrize("crash", [False, True])
def test_sink_that_is_not_idempotent_fails_the_check(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dying: Callable[[int], None], crash: bool
) -> None:
    """The planted fault: the tests above must detect it."""
    monkeypatch.setattr("tests.settlement.test_crash.CsvSink", Naive)
    events = market_events()
    if crash:
        dying(200)
        with pytest.raises(Died):
            settle_on(tmp_path, events, random.Random(1))
        dying(0)
    settle_on(tmp_path, events, random.Random(1))
    if crash:
        with pytest.raises(AssertionError):
            check_trades(tmp_path, events)
    else:
        check_trades(tmp_path, events)
