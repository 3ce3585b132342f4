"""Compile the projection before any test here."""

import pytest

from smrx.history.order_kernels import warm_up


@pytest.fixture(scope="session", autouse=True)
def compiled() -> None:
    """Compile the projection, or load what was compiled before."""
    warm_up()
