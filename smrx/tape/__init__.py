"""Tapes: recorded or generated order flow, its conversion to commands, and checks of what the engine does with it.

A tape is converted to commands before any of them is sent, so the commands depend on the tape alone. Called by the
command line, the demo, the benchmarks and tests; never by the engine or a node.
"""
