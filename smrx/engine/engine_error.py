"""What the engine raises at its caller. Nothing that stands in a command ever raises: that is an outcome."""


class EngineError(Exception):
    """The engine was called in a way it does not offer."""


class SnapshotError(ValueError):
    """Bytes that are no usable snapshot; the message is one sentence for an operator."""
