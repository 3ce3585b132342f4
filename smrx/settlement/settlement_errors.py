"""Errors that end a run of settlement. Each message names the event and the difference."""


class SettlementError(Exception):
    """Settlement cannot continue."""


class Violation(SettlementError):
    """The feed contradicts itself or the rules of the exchange; nothing from this event on is settled."""

    def __init__(self, sequence: int, message: str) -> None:
        self.sequence = sequence
        super().__init__(f"event {sequence}: {message}")


class BalanceDifference(SettlementError):
    """The books and the cluster differ in what an account owns."""

    def __init__(self, sequence: int, message: str) -> None:
        self.sequence = sequence
        super().__init__(message)


class LogDifference(SettlementError):
    """What is stored differs from what the log of a node gives."""


class Unattested(SettlementError):
    """Events have arrived that no majority of nodes has published alike; they are not settled."""


class NotConnected(SettlementError):
    """No node sent anything or answered."""
