"""Settled rows in PostgreSQL: COPY of rows and the change of the checkpoint, in one transaction for each commit.

Rows wait in memory as text until commit(). Match ids and event sequences are unique keys: what the checkpoint should
already prevent, the database refuses. A session lock keeps a second verifier out, and the checkpoint is only changed
from what this sink last read, whoever else may have got past the lock. A commit whose answer is lost with the server is
either there or not: open() reads which.
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
from smrx.sinks.postgresql_schema import DEFAULT_SCHEMA, connect, describe, migrate, telling
from smrx.sinks.row_sink import RowSink
from smrx.sinks.rows import Rows, Tables
from smrx.sinks.sink_errors import SinkError, SinkMismatch

#: An empty cell is NULL, but for the columns of words that may be empty.
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

    def _hold(self) -> tuple[Checkpoint | None, Rows]:
        with telling(self.name):
            self._connection = connection = connect(self._dsn)
            connection.autocommit = True
            # A commit that returns is on the disk, whatever the server's default is.
            connection.execute("SET synchronous_commit TO on")
            # Schema and tables are made if they are not there.
            migrate(connection, self._schema, self.name)
            key = f"smrx settle {self._schema}"
            locked = connection.execute("SELECT pg_try_advisory_lock(hashtext(%s))", [key]).fetchone()
            if locked != (True,):
                raise SinkError(f"{self.name}: another process settles into it; stop that one")
            return read_checkpoint(connection), read_definitions(connection)

    def _roll_back(self) -> None:
        """See RowSink: a transaction that was not committed never was."""
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
        with telling(self.name), connection.transaction():
            for table, lines in self._waiting.items():
                if lines:
                    self._copy(connection, table, lines)
            self._move_checkpoint(connection, held, checkpoint)
        for lines in self._waiting.values():
            lines.clear()

    def _let_go(self) -> None:
        if self._connection is not None:
            self._connection.close()
        self._connection, self._waiting = None, {}

    def _copy(self, connection: psycopg.Connection, table: str, lines: list[Lines]) -> None:
        columns, more = _COPY[table]
        # Names from the table above, no input of anybody.
        statement: Any = f"COPY {table} ({', '.join(columns)}) FROM STDIN WITH (FORMAT csv{more})"
        with connection.cursor() as cursor, cursor.copy(statement) as copy:
            for piece in lines:
                copy.write(piece.text.data)

    def _move_checkpoint(self, connection: psycopg.Connection, held: Checkpoint | None, new: Checkpoint) -> None:
        """Change the checkpoint row from what it was. Raises SinkMismatch if it is not that any more."""
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
