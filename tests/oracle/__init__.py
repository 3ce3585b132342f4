"""The state machine again, in plain Python, to hold the compiled engine to its word."""

from tests.oracle.machine import Oracle, Result

__all__ = ["Oracle", "Result"]
