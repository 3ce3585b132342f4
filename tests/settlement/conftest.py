"""Compile the books before any test of settlement: tests wait for runs, and kill processes, that must not compile."""

import pytest

from smrx.settlement.books.compiled_books import warm_up


@pytest.fixture(scope="session", autouse=True)
def compiled() -> None:
    """Compile the books, or load what was compiled before; takes some ten seconds on a quiet machine."""
    warm_up()
