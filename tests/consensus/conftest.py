"""Provide the simulated clock of the consensus tests."""

from collections.abc import Iterator

import pytest

from tests.consensus.harness import Clock, simulated


@pytest.fixture
def clock() -> Iterator[Clock]:
    """Simulated time; the library runs on it for the length of the test."""
    with simulated(1) as clock:
        yield clock
