"""Define the errors that a client raises: one class for each way in which the caller can react."""

import numpy as np
from numpy.typing import NDArray

from smrx.client.reasons import reason_text
from smrx.wire.codes import Reason


class ClientError(Exception):
    """Base class of all errors of a client."""


class Refused(ClientError):
    """The exchange rejected the command; no order, balance or setting changed."""

    def __init__(self, what: str, reason: Reason, outcome: NDArray[np.void] | None = None) -> None:
        super().__init__(f"{what} was refused: {reason_text(reason)} ({reason.name})")
        self.reason = reason
        #: The outcome record, an array of one; None if the session itself was rejected.
        self.outcome = outcome


class Unavailable(ClientError):
    """No node answered within the timeout.

    `requests`: the ids of the requests of which it is unknown whether they were applied. They are not sent again.
    """

    def __init__(self, message: str, requests: range = range(0)) -> None:
        super().__init__(message)
        self.requests = requests


class ProtocolError(ClientError):
    """A node violated the protocol, or has a different version of it."""


class InvalidValue(ClientError, ValueError):
    """An argument is invalid; nothing was sent."""
