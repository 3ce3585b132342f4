"""The exceptions of the engine. Nothing in a command ever raises: a bad command gets a REJECTED outcome."""


class EngineError(Exception):
    """The engine was called in a way that it does not support."""


class RulesError(Exception):
    """The rules in force are a version that this program cannot apply; the message is one sentence for an operator."""


class SnapshotError(ValueError):
    """Bytes that are not a usable snapshot; the message is one sentence for an operator."""
