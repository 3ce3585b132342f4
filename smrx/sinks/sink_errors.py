"""Why a sink fails: for now, or for good. Each message is one sentence for the operator."""


class SinkFault(Exception):
    """A sink cannot go on."""


class SinkError(SinkFault):
    """A sink cannot write now: the disk is full, the place is in use, the database is away. Trying again may help."""


class SinkMismatch(SinkFault):
    """A sink holds another cluster's or history's data, or a format this version does not know: no retry helps."""
