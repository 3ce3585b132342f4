"""Connect to PostgreSQL and create the tables, from plain SQL files that are applied in order, each once.

The files are migrations/NNN_name.sql. The table `migrations` holds the numbers of those applied; a number above the
newest file means that a newer smrx wrote here. Called by the sink and the reader.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import resources
from typing import Final

import psycopg
from psycopg import conninfo, errors, sql

from smrx.sinks.sink_errors import SinkError, SinkMismatch

DEFAULT_SCHEMA: Final = "smrx_settlement"

#: A dead server is noticed within half a minute instead of after TCP's timeout. Options in the DSN take precedence.
_CONNECTION: Final = {
    "application_name": "smrx settlement",
    "connect_timeout": "10",
    "keepalives_idle": "10",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "tcp_user_timeout": "30000",
}


def describe(dsn: str, schema: str) -> str:
    """Return the name of a database without its password. Raises SinkMismatch for a DSN that libpq does not accept."""
    parts = _parse(dsn)
    where = f"{parts.get('host') or 'the local socket'}, database {parts.get('dbname') or 'by default'}"
    return f"PostgreSQL at {where}, schema {schema}"


def connect(dsn: str) -> psycopg.Connection:
    """Return a connection. Raises psycopg.Error."""
    return psycopg.connect(**{**_CONNECTION, **_parse(dsn)})  # type: ignore[arg-type]


@contextmanager
def as_sink_errors(name: str) -> Iterator[None]:
    """Raise SinkMismatch for errors of psycopg that no retry can resolve, SinkError for the others."""
    try:
        yield
    except (errors.IntegrityError, errors.DataError, errors.UndefinedTable, errors.UndefinedColumn) as error:
        raise SinkMismatch(f"{name}: holds other data than was settled: {_line(error)}") from None
    except psycopg.Error as error:
        raise SinkError(f"{name}: cannot be used: {_line(error)}") from None


def migrate(connection: psycopg.Connection, schema: str, name: str) -> None:
    """Bring the schema to the newest version, in one transaction. Raises SinkMismatch if it is newer than this smrx."""
    files = migrations()
    with connection.transaction():
        # Of two processes that start together the second waits here, and finds the work done.
        connection.execute("SELECT pg_advisory_xact_lock(hashtext(%s))", [f"smrx migrate {schema}"])
        # CREATE SCHEMA IF NOT EXISTS requires the right to create even if there is nothing to create.
        if connection.execute("SELECT 1 FROM pg_namespace WHERE nspname = %s", [schema]).fetchone() is None:
            connection.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(schema)))
        use(connection, schema)
        connection.execute(
            "CREATE TABLE IF NOT EXISTS migrations "
            "(version integer PRIMARY KEY, applied_at timestamptz NOT NULL DEFAULT now())"
        )
        done = check_version(connection, name)
        for version, text in files.items():
            if version not in done:
                # psycopg accepts a literal or bytes; this is a file of this package.
                connection.execute(text.encode())
                connection.execute("INSERT INTO migrations (version) VALUES (%s)", [version])


def check_version(connection: psycopg.Connection, name: str) -> set[int]:
    """Return the numbers of the files applied. Raises SinkMismatch if one is newer than this smrx."""
    known = max(migrations())
    done = {int(row[0]) for row in connection.execute("SELECT version FROM migrations")}
    if max(done, default=0) > known:
        raise SinkMismatch(f"{name}: expected version {known} or older, found {max(done)}; use a newer smrx")
    return done


def use(connection: psycopg.Connection, schema: str) -> None:
    """Make the schema the only one in which names are looked up."""
    connection.execute(sql.SQL("SET search_path TO {}").format(sql.Identifier(schema)))


def migrations() -> dict[int, str]:
    """Return the SQL files by number, in order."""
    found = {}
    for file in resources.files("smrx.sinks").joinpath("migrations").iterdir():
        if match := re.fullmatch(r"(\d{3})_\w+\.sql", file.name):
            found[int(match[1])] = file.read_text(encoding="utf-8")
    return dict(sorted(found.items()))


def _parse(dsn: str) -> dict[str, str]:
    try:
        return {key: str(value) for key, value in conninfo.conninfo_to_dict(dsn).items() if value is not None}
    except psycopg.ProgrammingError as error:
        raise SinkMismatch(f"settlement.sinks: invalid dsn: {_line(error)}") from None


def _line(error: psycopg.Error) -> str:
    return " ".join(str(error).split()) or type(error).__name__
