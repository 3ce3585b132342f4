"""Errors that end a run that follows the stream. Each message names the event and the difference."""


class FollowError(Exception):
    """The run cannot continue."""


class Violation(FollowError):
    """The feed contradicts itself or the rules of the exchange; nothing from this event on is stored."""

    def __init__(self, sequence: int, message: str) -> None:
        self.sequence = sequence
        super().__init__(f"event {sequence}: {message}")


class Unattested(FollowError):
    """Events have arrived that no majority of nodes has published alike; they are not stored."""


class NotConnected(FollowError):
    """No node sent anything or answered."""
