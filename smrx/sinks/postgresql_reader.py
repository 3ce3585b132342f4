"""Read settled rows back from PostgreSQL: what was committed when the reader was opened.

Called by the sink and the reports.
"""

import itertools
from collections.abc import Iterator
from typing import Any, Final

import msgspec
import numpy as np
import psycopg

from smrx.sinks.contract import Checkpoint, Origin
from smrx.sinks.csv_rows import DEFINITIONS, MOVEMENTS, TRADES, Table
from smrx.sinks.postgresql_schema import (
    DEFAULT_SCHEMA,
    as_sink_errors,
    check_version,
    connect,
    describe,
    migrations,
    use,
)
from smrx.sinks.rows import DEFINITION_ROW, Rows
from smrx.sinks.sink_errors import SinkError, SinkMismatch

#: Lines of a COPY that are parsed in one go.
_LINES: Final = 50_000


class PostgresqlReader:
    """A consistent view of a settlement's tables; call close()."""

    def __init__(self, dsn: str, schema: str = DEFAULT_SCHEMA) -> None:
        """Open what a PostgresqlSink wrote. Raises SinkError if it is not there, SinkMismatch if it is newer."""
        self.name = describe(dsn, schema)
        with as_sink_errors(self.name):
            self._connection = connect(dsn)
        try:
            with as_sink_errors(self.name):
                self._connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
                use(self._connection, schema)
                if self._connection.execute("SELECT to_regclass('migrations')").fetchone() == (None,):
                    raise SinkError(f"{self.name}: has no tables of a settlement")
                done = check_version(self._connection, self.name)
                if set(migrations()) - done:
                    raise SinkMismatch(
                        f"{self.name}: expected version {max(migrations())}, found {max(done, default=0)}; "
                        "`smrx settle run` brings it up to date"
                    )
                self.checkpoint: Checkpoint | None = read_checkpoint(self._connection)
        except BaseException:
            self._connection.close()
            raise

    def definitions(self) -> Rows:
        """Every definition, in order."""
        with as_sink_errors(self.name):
            return read_definitions(self._connection)

    def movements(self) -> Iterator[Rows]:
        """Every movement of money, in order, in batches."""
        with as_sink_errors(self.name):
            yield from _read(self._connection, "movements", MOVEMENTS, "true", "event_sequence")

    def trades(self, account: int | None = None) -> Iterator[Rows]:
        """Every trade, or those of an account as taker or maker, in order, in batches."""
        # Converted to an integer, because COPY takes no parameters.
        which = "true" if account is None else f"{int(account)} IN (taker_account, maker_account)"
        with as_sink_errors(self.name):
            yield from _read(self._connection, "trades", TRADES, which, "match_id")

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


def read_checkpoint(connection: psycopg.Connection) -> Checkpoint | None:
    """Return the checkpoint of the tables, None if nothing was settled."""
    row = connection.execute(
        "SELECT cluster, event_sequence, command_sequence, match_id, state_hash, origin FROM checkpoint"
    ).fetchone()
    if row is None:
        return None
    origin = None if row[5] is None else msgspec.json.decode(str(row[5]), type=Origin)
    cluster, event, command, match_id, state_hash = str(row[0]), *map(int, row[1:5])
    return Checkpoint(cluster, event, command, match_id, state_hash, origin)


def read_definitions(connection: psycopg.Connection) -> Rows:
    """Return every definition, in order."""
    batches = _read(connection, "definitions", DEFINITIONS, "true", "event_sequence")
    return np.concatenate([np.empty(0, DEFINITION_ROW), *batches])


def _read(connection: psycopg.Connection, name: str, table: Table, which: str, order: str) -> Iterator[Rows]:
    """Yield the rows of a table, in batches, read as the text in which they were written."""
    table = table.without_time()
    # The names come from this file and the columns of the tables, not from input.
    query: Any = (
        f"COPY (SELECT {', '.join(table.columns)} FROM {name} WHERE {which} ORDER BY {order}) "  # noqa: S608
        "TO STDOUT WITH (FORMAT csv)"
    )
    with connection.cursor() as cursor, cursor.copy(query) as copy:
        # The server sends one line at a time.
        while lines := list(itertools.islice(copy, _LINES)):
            yield table.parse(b"".join(bytes(line) for line in lines).decode(), name)
