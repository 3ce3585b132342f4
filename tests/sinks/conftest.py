"""One PostgreSQL server for the tests of sinks, started when the first of them needs it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.sinks.places import KINDS, Place
from tests.sinks.postgres import Postgres


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    server = Postgres()
    try:
        server.start()
        yield server
    finally:
        server.remove()


@pytest.fixture(params=KINDS)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """Return a place of every kind, one after the other."""
    return make_place(request, request.param, tmp_path / "place")


def make_place(request: pytest.FixtureRequest, kind: str, path: Path) -> Place:
    """Return a place of one kind; the server is started only if it is needed."""
    dsn = request.getfixturevalue("postgres").dsn if kind == "postgresql" else ""
    return Place(kind, path, dsn)
