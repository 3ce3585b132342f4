"""Compile the books before any test here: the runs that they watch keep a ledger."""

from tests.settlement.conftest import compiled

__all__ = ["compiled"]
