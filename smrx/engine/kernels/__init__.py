"""The compiled functions of the state machine, and how they are compiled. Called by engine.py alone."""
