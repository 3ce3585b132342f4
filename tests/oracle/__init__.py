"""The state machine again, in plain Python, as the reference for the compiled engine."""

from tests.oracle.oracle import Oracle, Result

__all__ = ["Oracle", "Result"]
