"""Benchmarks as commands: each module has one `run`, which returns what it measured and under which conditions."""
