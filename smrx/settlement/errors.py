"""Why settlement stops. Every message names the event and what was expected and found."""


class SettlementError(Exception):
    """Settlement cannot go on."""


class Violation(SettlementError):
    """The feed contradicts itself or the rules of the exchange: nothing from this event on is settled."""

    def __init__(self, sequence: int, message: str) -> None:
        self.sequence = sequence
        super().__init__(f"event {sequence}: {message}")


class SinkError(SettlementError):
    """The settled trades cannot be written: the disk is full, the place is not writable or in use."""


class SinkContradiction(SettlementError):
    """The file of settled trades says something else than the feed; it is left as it is."""
