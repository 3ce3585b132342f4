"""PostgreSQL: the schema, the keys, and errors of the server."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import psycopg
import pytest

from smrx.sinks.postgresql_reader import PostgresqlReader
from smrx.sinks.postgresql_schema import migrations, use
from smrx.sinks.postgresql_sink import PostgresqlSink
from smrx.sinks.sink_errors import SinkError, SinkMismatch
from tests.sinks.places import Place, run
from tests.sinks.postgres import Postgres
from tests.sinks.stream import checkpoint, expected, stream

EVENTS = stream()


@pytest.fixture
def place(postgres: Postgres, tmp_path: Path) -> Place:
    return Place("postgresql", tmp_path, postgres.dsn)


def ask(place: Place, statement: str) -> list[tuple[object, ...]]:
    with psycopg.connect(place.dsn, options=f"-c search_path={place.schema}") as connection:
        return connection.execute(statement.encode()).fetchall()


def change(place: Place, statement: str) -> None:
    with psycopg.connect(place.dsn, options=f"-c search_path={place.schema}") as connection:
        connection.execute(statement.encode())


def test_migrations_are_applied_once_and_a_newer_one_is_refused(place: Place) -> None:
    sink = place.sink()
    for _ in range(2):
        sink.open("test")
        sink.close()
    assert ask(place, "SELECT version FROM migrations") == [(version,) for version in migrations()]
    change(place, "INSERT INTO migrations (version) VALUES (999)")
    with pytest.raises(
        SinkMismatch, match=f"expected version {max(migrations())} or older, found 999; use a newer smrx"
    ):
        sink.open("test")
    with pytest.raises(SinkMismatch, match="found 999"):
        place.reader()
    change(place, f"DELETE FROM migrations WHERE version >= {max(migrations())}")
    with pytest.raises(
        SinkMismatch, match=f"expected version {max(migrations())}, found {max(migrations()) - 1}; `smrx"
    ):
        place.reader()


def test_rows_of_an_older_version_get_a_time(place: Place) -> None:
    """What the migrations before had stored is kept."""
    with psycopg.connect(place.dsn, autocommit=True) as connection:
        connection.execute(f"CREATE SCHEMA {place.schema}".encode())
        use(connection, place.schema)
        connection.execute("CREATE TABLE migrations (version integer PRIMARY KEY)")
        for version in (1, 2):
            connection.execute(migrations()[version].encode())
            connection.execute("INSERT INTO migrations VALUES (%s)", [version])
        connection.execute(
            "INSERT INTO movements VALUES (1, 1, 1700000000123456789, 'DEPOSITED', 1, 'USD', 5, 5, 9, 2)"
        )
    sink = place.sink()
    sink.open("test")
    sink.close()
    assert ask(place, "SELECT extract(epoch FROM time)::text FROM movements") == [("1700000000.123456",)]


def test_open_waits_for_a_session_that_is_still_ending(place: Place) -> None:
    sink = place.sink()
    with psycopg.connect(place.dsn, autocommit=True) as ending, ThreadPoolExecutor(1) as pool:
        ending.execute("SELECT pg_advisory_lock(hashtext(%s))", [f"smrx settle {place.schema}"])
        opened = pool.submit(sink.open, "test")
        # The lock is released only once the sink waits for it.
        while not ending.execute("SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted").fetchone():
            assert not opened.done(), "the sink did not wait"
        ending.execute("SELECT pg_advisory_unlock_all()")
        opened.result()
    sink.close()


def test_tables_can_be_queried(place: Place) -> None:
    run(sink := place.sink(), EVENTS, [(len(EVENTS), True)])
    sink.close()
    trades = expected(EVENTS, len(EVENTS)).trades
    assert ask(place, "SELECT count(*), sum(notional), min(maker_fee) FROM trades") == [
        (len(trades), sum(row[6] for row in trades), min(row[10] for row in trades))
    ]
    assert ask(place, "SELECT DISTINCT taker_side FROM trades ORDER BY 1") == [("BUY",), ("SELL",)]
    assert ask(place, "SELECT max(transfer_id) FROM movements") == [((1 << 64) - 1,)]
    assert ask(place, "SELECT DISTINCT decimals IS NULL FROM definitions WHERE kind = 'RULES_SET'") == [(True,)]
    assert ask(place, "SELECT max(abs(extract(epoch FROM time) * 1000000 - time_ns / 1000.0)) <= 0.5 FROM trades") == [
        (True,)
    ]
    with closing(place.reader()) as reader:
        found = [row for rows in reader.trades(2) for row in rows.tolist()]
        assert found == [row for row in trades if 2 in row[12:14]]


def test_keys_refuse_what_the_checkpoint_did_not_prevent(place: Place) -> None:
    run(sink := place.sink(), EVENTS, [(100, True)])
    change(place, "UPDATE checkpoint SET event_sequence = 50, match_id = 0")
    sink.write(EVENTS[100:120])
    with pytest.raises(SinkMismatch, match="another process changed the checkpoint"):
        sink.commit(checkpoint(EVENTS, 120))
    sink.close()
    change(place, "UPDATE checkpoint SET match_id = (SELECT count(*) FROM trades WHERE event_sequence <= 50)")
    with pytest.raises(SinkMismatch, match="holds other data than was settled: duplicate key"):
        run(sink, EVENTS, [(100, True)])
    sink.close()
    assert ask(place, "SELECT count(*) FROM trades") == [(len(expected(EVENTS, 100).trades),)]


def test_unreachable_server_is_named_without_the_password(tmp_path: Path) -> None:
    dsn = f"host={tmp_path} dbname=books password=secret"
    with pytest.raises(SinkError, match="database books, schema smrx_settlement: cannot be used: connection") as caught:
        PostgresqlSink(dsn).open("test")
    assert "secret" not in str(caught.value)
    with pytest.raises(SinkError, match="cannot be used"):
        PostgresqlReader(dsn)


def test_invalid_dsn_is_refused() -> None:
    with pytest.raises(SinkMismatch, match="invalid dsn: "):
        PostgresqlSink("hast=nowhere")


def test_reader_of_an_empty_database_is_refused(place: Place) -> None:
    with pytest.raises(SinkError, match="has no tables of a settlement"):
        place.reader()


def test_reader_sees_one_state_during_writes(place: Place) -> None:
    run(sink := place.sink(), EVENTS, [(100, True)])
    with closing(place.reader()) as reader:
        sink.write(EVENTS[100:300])
        sink.commit(checkpoint(EVENTS, 300))
        assert reader.checkpoint == checkpoint(EVENTS, 100)
        assert [row for rows in reader.trades() for row in rows.tolist()] == expected(EVENTS, 100).trades
    sink.close()
    assert place.content() == (expected(EVENTS, 300), 300)
