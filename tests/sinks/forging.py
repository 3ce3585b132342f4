"""Replace stored trades by others, consistently, in every kind of sink.

What a sink writes about its own files is made to fit: only who derives the trades anew can tell.
"""

import itertools
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import lmdb
import msgspec
import numpy as np
import psycopg

from smrx.config import SinkConfig
from smrx.settlement.readers import open_reader
from smrx.sinks.csv_layout import CsvCheckpoint, header, layout
from smrx.sinks.csv_rows import TRADE_COLUMNS, trade_lines
from smrx.sinks.lmdb_layout import TABLES, key
from smrx.sinks.parquet_layout import MANIFEST, Manifest, Part
from smrx.sinks.postgresql_schema import DEFAULT_SCHEMA, use
from smrx.sinks.rows import Catalogue, Rows


def forge(sink: SinkConfig, change: Callable[[Rows], Rows]) -> None:
    """Replace the trades that a sink at an absolute path or in a database holds."""
    with closing(open_reader(sink, Path("/"))) as reader:
        stored = np.concatenate(list(reader.trades()))
        catalogue = Catalogue()
        catalogue.add(reader.definitions())
    _PUT[sink.kind](sink, change(stored), catalogue)


def _text(trades: Rows, catalogue: Catalogue) -> bytes:
    return trade_lines(trades, catalogue).text.tobytes()


def _put_csv(sink: SinkConfig, trades: Rows, catalogue: Catalogue) -> None:
    files = layout(sink.path or "")
    held = msgspec.json.decode(files.checkpoint.read_bytes(), type=CsvCheckpoint)
    text = header(TRADE_COLUMNS) + _text(trades, catalogue)
    (files.directory / f"{files.trades}.csv").write_bytes(text)
    held.trades.bytes = len(text)
    files.checkpoint.write_bytes(msgspec.json.encode(held))


def _put_lmdb(sink: SinkConfig, trades: Rows, catalogue: Catalogue) -> None:
    with lmdb.open(str(sink.path), max_dbs=len(TABLES)) as environment:
        table = environment.open_db(b"trades")
        with environment.begin(write=True) as transaction:
            transaction.drop(table, delete=False)
            transaction.put(key(int(trades[0]["match_id"])), trades.tobytes(), db=table)


def _put_parquet(sink: SinkConfig, trades: Rows, catalogue: Catalogue) -> None:
    directory = Path(sink.path or "")
    held = msgspec.json.decode((directory / MANIFEST).read_bytes(), type=Manifest)
    (directory / "trades-tail-000099.rows").write_bytes(trades.tobytes())
    held.trades = Part([], 99, trades.nbytes)
    (directory / MANIFEST).write_bytes(msgspec.json.encode(held))


def _put_postgresql(sink: SinkConfig, trades: Rows, catalogue: Catalogue) -> None:
    with psycopg.connect(sink.dsn or "") as connection:
        use(connection, sink.schema or DEFAULT_SCHEMA)
        constraints = connection.execute(
            "SELECT conname FROM pg_constraint WHERE conrelid = 'trades'::regclass AND contype IN ('p', 'u')"
        ).fetchall()
        for name in itertools.chain.from_iterable(constraints):
            connection.execute(f'ALTER TABLE trades DROP CONSTRAINT "{name}" CASCADE'.encode())
        connection.execute("TRUNCATE trades")
        columns = ", ".join(TRADE_COLUMNS)
        with connection.cursor().copy(f"COPY trades ({columns}) FROM STDIN WITH (FORMAT csv)".encode()) as copy:
            copy.write(_text(trades, catalogue))


_PUT = {"csv": _put_csv, "lmdb": _put_lmdb, "parquet": _put_parquet, "postgresql": _put_postgresql}
