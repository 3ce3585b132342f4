"""What every sink guarantees."""

import itertools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import lmdb
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smrx.config import Config, Settlement, SinkConfig
from smrx.settlement.readers import open_reader
from smrx.sinks import Checkpoint, make_sink, make_sinks
from smrx.sinks.lmdb_layout import STATE
from smrx.sinks.sink_errors import SinkError, SinkMismatch
from smrx.wire.codes import EventKind
from smrx.wire.records import EVENT_LAYOUTS
from tests.sinks.conftest import make_place
from tests.sinks.places import KINDS, Place, Step, run
from tests.sinks.stream import CLUSTER, Events, checkpoint, expected, stream

EVENTS = stream()
ALL = len(EVENTS)


def test_written_rows_are_read_back(place: Place) -> None:
    sink = place.sink()
    assert run(sink, EVENTS, [(ALL, True)]) == 0
    sink.close()
    assert place.content() == (expected(EVENTS, ALL), ALL)


def _lost(events: Events) -> Events:
    """Remove a trade, and renumber the later ones."""
    wrong = np.array(events)
    at = np.flatnonzero(wrong["kind"] == EventKind.TRADE)
    wrong["kind"][at[-1]] = EventKind.TICKED
    return wrong


def _changed(events: Events) -> Events:
    wrong = np.array(events)
    trades = wrong.view(EVENT_LAYOUTS[EventKind.TRADE])
    trades["maker_fee"][np.flatnonzero(wrong["kind"] == EventKind.TRADE)[3]] += 1
    return wrong


def _moved(events: Events) -> Events:
    wrong = np.array(events)
    moved = wrong.view(EVENT_LAYOUTS[EventKind.WITHDRAWN])
    moved["transfer_id"][np.flatnonzero(wrong["kind"] == EventKind.WITHDRAWN)[3]] -= np.uint64(1)
    return wrong


@pytest.mark.parametrize("fault", [_lost, _changed, _moved])
def test_check_detects_a_sink_with_other_rows(place: Place, fault: Callable[[Events], Events]) -> None:
    sink, wrong = place.sink(), fault(EVENTS)
    sink.open(CLUSTER)
    sink.write(wrong)
    sink.commit(checkpoint(wrong, ALL))
    sink.close()
    found, _ = place.content()
    assert found != expected(EVENTS, ALL)
    assert found == expected(wrong, ALL)


def test_open_returns_the_checkpoint_and_rolls_back_the_rest(place: Place) -> None:
    sink = place.sink()
    assert sink.open(CLUSTER) is None
    sink.write(EVENTS[:200])
    sink.close()
    assert place.content() == (expected(EVENTS, 0), 0)
    assert sink.open(CLUSTER) is None
    sink.write(EVENTS[:300])
    sink.commit(checkpoint(EVENTS, 300))
    sink.write(EVENTS[300:400])
    sink.close()
    assert sink.open(CLUSTER) == checkpoint(EVENTS, 300)
    sink.close()
    assert place.content() == (expected(EVENTS, 300), 300)


def test_events_held_already_are_skipped(place: Place) -> None:
    sink = place.sink()
    run(sink, EVENTS, [(300, True)])
    sink.write(EVENTS[:250])
    sink.write(EVENTS[100:350])
    sink.write(EVENTS[:350])
    sink.commit(checkpoint(EVENTS, 350))
    sink.commit(checkpoint(EVENTS, 350))
    sink.commit(checkpoint(EVENTS, 120))
    sink.close()
    assert place.content() == (expected(EVENTS, 350), 350)
    assert sink.open(CLUSTER) == checkpoint(EVENTS, 350), "a checkpoint never goes back"
    sink.close()


def test_other_cluster_other_history_and_gap_are_refused(place: Place) -> None:
    sink = place.sink()
    run(sink, EVENTS, [(300, True)])
    held = checkpoint(EVENTS, 300)
    with pytest.raises(SinkMismatch, match="holds another history"):
        sink.commit(Checkpoint(CLUSTER, 300, held.command_sequence, held.match_id, held.state_hash ^ 1))
    with pytest.raises(SinkMismatch, match="expected event 301 or one before it, found 302"):
        sink.write(EVENTS[301:310])
    with pytest.raises(SinkMismatch, match="events in a row"):
        sink.write(np.concatenate([EVENTS[300:310], EVENTS[312:320]]))
    with pytest.raises(SinkMismatch, match="expected a checkpoint at event 300"):
        sink.commit(checkpoint(EVENTS, 310))
    sink.close()
    with pytest.raises(SinkMismatch, match="expected data of cluster 'other', found cluster 'test'"):
        sink.open("other")
    assert sink.open(CLUSTER) == held, "whatever was refused, nothing was lost"
    sink.close()
    assert place.content() == (expected(EVENTS, 300), 300)


def test_missing_and_repeated_match_ids_are_refused(place: Place) -> None:
    sink = place.sink()
    for change in (1, -1):
        sink.open(CLUSTER)
        wrong = np.array(EVENTS[:300])
        trades = np.flatnonzero(wrong["kind"] == EventKind.TRADE)
        wrong["match_id"][trades[-1]] = int(wrong["match_id"][trades[-1]]) + change
        with pytest.raises(SinkMismatch, match="expected trades 1 to"):
            sink.write(wrong)
        sink.close()


def test_second_writer_is_refused(place: Place) -> None:
    first, second = place.sink(), place.sink()
    first.open(CLUSTER)
    with pytest.raises(SinkError, match="in use by another process"):
        second.open(CLUSTER)
    first.close()
    first.close()
    second.open(CLUSTER)
    second.close()


#: A run that breaks off: lots of events, and whether they are committed; and how far each write reaches back.
SESSION = st.tuples(st.lists(st.tuples(st.integers(1, 250), st.booleans()), min_size=1, max_size=5), st.integers(0, 60))


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=12, deadline=None)
@given(sessions=st.lists(SESSION, max_size=5))
def test_result_does_not_depend_on_batches_and_restarts(
    kind: str,
    sessions: list[tuple[list[Step], int]],
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    place = make_place(request, kind, tmp_path_factory.mktemp("any"))
    at = 0
    for lots, overlap in [*sessions, ([(ALL, True)], 10)]:
        ends = itertools.accumulate((count for count, _ in lots), initial=at)
        steps = [
            (min(ALL, end), commit) for end, (_, commit) in zip(itertools.islice(ends, 1, None), lots, strict=True)
        ]
        sink = place.sink()
        assert run(sink, EVENTS, steps, overlap) == at
        sink.close()
        at = max([at, *(end for end, commit in steps if commit)])
        assert place.content() == (expected(EVENTS, at), at)
    if kind.startswith("csv"):
        once = make_place(request, kind, tmp_path_factory.mktemp("once"))
        sink = once.sink()
        run(sink, EVENTS, [(ALL, True)])
        sink.close()
        assert place.files() == once.files()


@pytest.mark.parametrize(("number", "advice"), [(1, "an older smrx wrote it"), (3, "use a newer smrx")])
@pytest.mark.parametrize("kind", ["csv", "parquet", "lmdb"])
def test_other_format_is_refused(kind: str, number: int, advice: str, tmp_path: Path) -> None:
    """PostgreSQL is tested in test_postgresql.py."""
    place = Place(kind, tmp_path)
    run(sink := place.sink(), EVENTS, [(50, True)])
    sink.close()
    if kind == "lmdb":
        with lmdb.open(str(tmp_path), max_dbs=6) as environment, environment.begin(write=True) as transaction:
            table = environment.open_db(b"meta", transaction)
            transaction.put(STATE, b'{"format": %d, "colour": "blue"}' % number, db=table)
    else:
        file = next(tmp_path.glob("*.json"))
        file.write_text(f'{{"format": {number}, "colour": "blue"}}')
    with pytest.raises(SinkMismatch, match=f"expected format 2, found {number}; {advice}"):
        sink.open(CLUSTER)
    with pytest.raises(SinkMismatch, match=f"found {number}"):
        place.reader()


def test_configuration_selects_the_sinks(tmp_path: Path) -> None:
    config = Config(
        settlement=Settlement(
            directory=str(tmp_path),
            sinks=(
                SinkConfig(kind="csv", rotate_bytes=1000),
                SinkConfig(kind="lmdb", path="db"),
                SinkConfig(kind="parquet", path=str(tmp_path / "files")),
                SinkConfig(kind="postgresql", dsn="host=db.example.org dbname=books password=secret", schema="s"),
            ),
        )
    )
    names = [sink.name for sink in make_sinks(config)]
    assert names == [
        f"CSV {tmp_path}/settled_trades.csv",
        f"LMDB {tmp_path}/db",
        f"Parquet {tmp_path}/files",
        "PostgreSQL at db.example.org, database books, schema s",
    ], "and none of them shows a password"
    assert not list(tmp_path.iterdir()), "nothing is touched before open()"


@pytest.mark.parametrize(
    ("kind", "package", "extra"), [("postgresql", "psycopg", "postgres"), ("parquet", "pyarrow", "parquet")]
)
def test_missing_package_is_named_with_its_extra(
    kind: Literal["postgresql", "parquet"], package: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in list(sys.modules):
        if name.split(".")[0] == package or name.startswith(f"smrx.sinks.{kind}"):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    sink = SinkConfig(kind=kind, path="files", dsn="dbname=books")
    for use in (make_sink, open_reader):
        with pytest.raises(SinkMismatch, match=rf"{package} is not installed; install .* smrx\[{extra}\]"):
            use(sink, Path())


def test_default_is_one_csv_file() -> None:
    assert [sink.name for sink in make_sinks(Config())] == ["CSV settled/settled_trades.csv"]
