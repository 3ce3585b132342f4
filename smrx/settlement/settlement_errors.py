"""Errors that end a run of settlement, beside those of any run that follows the stream. Each names the difference."""

from smrx.follower.follow_errors import FollowError


class BalanceDifference(FollowError):
    """The books and the cluster differ in what an account owns."""

    def __init__(self, sequence: int, message: str) -> None:
        self.sequence = sequence
        super().__init__(message)


class LogDifference(FollowError):
    """What is stored differs from what the log of a node gives."""
