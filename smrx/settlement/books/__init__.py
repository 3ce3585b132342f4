"""Independent double-entry books, compiled: what accounts own and what their orders hold, from events alone.

Of the engine they import only smrx.engine.kernels.jit, the helpers that compile a function. Every rule is written a
second time here.
"""
