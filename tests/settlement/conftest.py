"""What tests of settlement wait for before they measure time or kill processes."""

import pytest

from smrx.settlement.books.compiled_books import warm_up


@pytest.fixture(scope="session")
def compiled() -> None:
    """Compile the books before anybody waits for them: a child that is killed while it compiles gets no further."""
    warm_up()
