"""What a client can tell its caller went wrong: one class a remedy, one sentence each."""

import numpy as np
from numpy.typing import NDArray

from smrx.client.reasons import reason_text
from smrx.wire.codes import Reason


class ClientError(Exception):
    """Any error of the client; the message is one sentence for people."""


class Refused(ClientError):
    """The exchange refused the command; nothing but the sequences changed."""

    def __init__(self, what: str, reason: Reason, outcome: NDArray[np.void] | None = None) -> None:
        super().__init__(f"{what} was refused: {reason_text(reason)} ({reason.name})")
        self.reason = reason
        #: The outcome record, an array of one; None where the session itself was refused.
        self.outcome = outcome


class Unavailable(ClientError):
    """Nobody answered in time. `requests`: those whose fate is unknown; they are never sent again."""

    def __init__(self, message: str, requests: range = range(0)) -> None:
        super().__init__(message)
        self.requests = requests


class ProtocolError(ClientError):
    """The other side broke the protocol, or speaks another version of it."""


class InvalidValue(ClientError, ValueError):
    """A value that cannot be sent: what was expected and what was found."""
