"""Benchmarks: each module has one `run`, which returns its figures and the conditions they were measured under."""
