"""Errors of sinks: temporary ones, and those that no retry can resolve. Each message is for the operator."""


class SinkFault(Exception):
    """A sink cannot continue."""


class SinkError(SinkFault):
    """A sink cannot write now: the disk is full, the place is in use, the database is down. A retry may succeed."""


class SinkMismatch(SinkFault):
    """A sink holds another cluster's or history's data, or a format of a newer version: no retry helps."""
