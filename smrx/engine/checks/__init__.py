"""Invariants of a state and its content hash from scratch: plain NumPy, for tests, simulator and restores."""
