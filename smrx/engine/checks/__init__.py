"""What must always hold of a state, and the state hash from scratch: plain NumPy, for tests, simulator and restores."""
