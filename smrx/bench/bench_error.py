"""Errors of benchmarks. The command line maps them to exit codes."""


class BenchError(Exception):
    """A benchmark could not measure what it reports; the message gives the reason."""


class WrongResultError(BenchError):
    """The measured part of smrx produced a wrong result, so its speed means nothing."""


class LeaderChanged(BenchError):
    """The node that was asked does not lead any more."""
