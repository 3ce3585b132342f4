"""Why settlement stops. Every message names the event and what was expected and found."""


class SettlementError(Exception):
    """Settlement cannot go on."""


class Violation(SettlementError):
    """The feed contradicts itself or the rules of the exchange: nothing from this event on is settled."""

    def __init__(self, sequence: int, message: str) -> None:
        self.sequence = sequence
        super().__init__(f"event {sequence}: {message}")


class BalanceDifference(SettlementError):
    """The books and the cluster do not agree on what an account owns."""

    def __init__(self, sequence: int, message: str) -> None:
        self.sequence = sequence
        super().__init__(message)


class LogDifference(SettlementError):
    """What is stored is not what the log of a node leads to."""


class Unattested(SettlementError):
    """Events are here that no majority of nodes has published alike; they are not settled."""


class NotConnected(SettlementError):
    """No node was heard."""
