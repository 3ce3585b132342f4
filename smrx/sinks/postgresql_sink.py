"""Store settled rows in PostgreSQL: COPY of the rows and update of the checkpoint in one transaction a commit.

Rows are kept in memory as text until commit(). Match ids and event sequences are unique keys, so that the database
refuses a second copy even if the checkpoint did not prevent it. A session lock excludes a second process, and the
checkpoint is updated only from the value this sink last read, in case the lock failed. If the server dies before it
answers a commit, open() reads whether it took place.
"""

from typing import Any, Final

import msgspec
import psycopg

from smrx.sinks.contract import Checkpoint
from smrx.sinks.csv_rows import (
    DEFINITION_COLUMNS,
    MOVEMENT_COLUMNS,
    TRADE_COLUMNS,
    definition_lines,
    movement_lines,
    trade_lines,
)
from smrx.sinks.csv_text import Lines
from smrx.sinks.postgresql_reader import read_checkpoint, read_definitions
from smrx.sinks.postgresql_schema import DEFAULT_SCHEMA, as_sink_errors, connect, describe, migrate
from smrx.sinks.row_sink import RowSink
from smrx.sinks.rows import Rows, Tables
from smrx.sinks.sink_errors import SinkError, SinkMismatch

#: An empty cell is NULL, except in columns of words that may be empty.
_COPY: Final = {
    "definitions": (DEFINITION_COLUMNS, ""),
    "movements": (MOVEMENT_COLUMNS, ", FORCE_NOT_NULL (asset)"),
    "trades": (TRADE_COLUMNS, ", FORCE_NOT_NULL (instrument)"),
}


class PostgresqlSink(RowSink):
    """One settlement in a schema of a PostgreSQL database."""

    def __init__(self, dsn: str, schema: str = DEFAULT_SCHEMA) -> None:
        """Write to the tables of a schema; nothing is touched before open(). Raises SinkMismatch for a wrong DSN."""
        super().__init__(describe(dsn, schema))
        self._dsn = dsn
        self._schema = schema
        self._connection: psycopg.Connection | None = None
        self._waiting: dict[str, list[Lines]] = {}

    def _open(self) -> tuple[Checkpoint | None, Rows]:
        with as_sink_errors(self.name):
            self._connection = connection = connect(self._dsn)
            connection.autocommit = True
            # A commit that returns is durable, whatever the server's default is.
            connection.execute("SET synchronous_commit TO on")
            migrate(connection, self._schema, self.name)
            key = f"smrx settle {self._schema}"
            # The server may still be ending the session of a process that has just stopped.
            connection.execute("SET lock_timeout TO '2s'")
            try:
                connection.execute("SELECT pg_advisory_lock(hashtext(%s))", [key])
            except psycopg.errors.LockNotAvailable:
                raise SinkError(f"{self.name}: in use by another process; stop that one") from None
            connection.execute("SET lock_timeout TO DEFAULT")
            return read_checkpoint(connection), read_definitions(connection)

    def _roll_back(self) -> None:
        """See RowSink; the server drops a transaction that was not committed."""
        self._waiting = {table: [] for table in _COPY}

    def _append(self, tables: Tables) -> None:
        catalogue = self._opened().catalogue
        if len(tables.definitions):
            self._waiting["definitions"].append(definition_lines(tables.definitions))
        if len(tables.movements):
            self._waiting["movements"].append(movement_lines(tables.movements, catalogue))
        if len(tables.trades):
            self._waiting["trades"].append(trade_lines(tables.trades, catalogue))

    def _commit(self, checkpoint: Checkpoint) -> None:
        connection, held = self._connection, self._opened().held
        assert connection is not None
        with as_sink_errors(self.name), connection.transaction():
            for table, lines in self._waiting.items():
                if lines:
                    self._copy(connection, table, lines)
            self._move_checkpoint(connection, held, checkpoint)
        for lines in self._waiting.values():
            lines.clear()

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
        self._connection, self._waiting = None, {}

    def _copy(self, connection: psycopg.Connection, table: str, lines: list[Lines]) -> None:
        columns, more = _COPY[table]
        # The names come from the table above, not from input.
        statement: Any = f"COPY {table} ({', '.join(columns)}) FROM STDIN WITH (FORMAT csv{more})"
        with connection.cursor() as cursor, cursor.copy(statement) as copy:
            for piece in lines:
                copy.write(piece.text.data)

    def _move_checkpoint(self, connection: psycopg.Connection, held: Checkpoint | None, new: Checkpoint) -> None:
        """Update the checkpoint row from its old value. Raises SinkMismatch if that has changed."""
        origin = None if new.origin is None else msgspec.json.encode(new.origin).decode()
        values = [new.cluster, new.event_sequence, new.command_sequence, new.match_id, new.state_hash, origin]
        if held is None:
            changed = connection.execute(
                "INSERT INTO checkpoint (cluster, event_sequence, command_sequence, match_id, state_hash, origin) "
                "VALUES (%s, %s, %s, %s, %s, %s) ON CONFLICT DO NOTHING",
                values,
            )
        else:
            changed = connection.execute(
                "UPDATE checkpoint SET cluster = %s, event_sequence = %s, command_sequence = %s, match_id = %s, "
                "state_hash = %s, origin = %s WHERE event_sequence = %s AND cluster = %s",
                [*values, held.event_sequence, held.cluster],
            )
        if changed.rowcount != 1:
            raise SinkMismatch(f"{self.name}: another process changed the checkpoint; stop that one and start again")
