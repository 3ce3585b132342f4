"""Tapes: recorded or generated order flow, its way into commands, and the proof that the engine does as history did.

A tape is turned into commands before anything is sent: the commands are a function of the tape alone. Called by the
command line, the demo, the benchmarks and tests; never by the engine or a node.
"""
