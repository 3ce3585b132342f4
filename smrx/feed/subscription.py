"""Requests of a subscriber on a node's events socket: their limits, and their frames.

A subscriber sends SUBSCRIBE or SUBSCRIBE_OWN once, and CREDIT as it consumes what it receives. A node sends EVENTS, or
UPDATES for some accounts, while there is credit, and nothing beyond it. RETRANSMIT and ATTEST are in retransmission.py.
Sans I/O. Used by both sides: subscribers encode requests, the node (node/publisher.py) decodes and answers them.
"""

from collections.abc import Iterable
from enum import Enum
from typing import Final, NamedTuple

import numpy as np

from smrx.wire import frames
from smrx.wire.frames import ErrorCode, Frame, FrameError, FrameKind

#: The credit that a node counts for one subscriber at most: the longest answer. With 30 ms from a frame to the credit
#: for it, this is enough for 128 MiB a second. The node queues less (node/publisher.py).
MAX_CREDIT: Final = (4 << 20) + (4 << 10)
#: A subscriber that has consumed so much sends CREDIT. An eighth: the node never waits for it on a fast connection.
CREDIT_STEP: Final = MAX_CREDIT // 8
#: A subscriber sends a message at least this often; CREDIT with 0 bytes if there is nothing else to say.
KEEP_ALIVE_S: Final = 1.0
#: A node forgets a subscriber after so long a silence.
SILENCE_S: Final = 15.0

#: The longest message that the events socket accepts. ZeroMQ applies the same limit to its own handshake (41 bytes and
#: an identity), and silently drops a peer whose handshake is longer.
MAX_REQUEST_BYTES: Final = frames.HEADER_SIZE + 4 * frames.MAX_ACCOUNTS


class Own(Enum):
    """The accounts that the credential of the subscriber acts for: one, those of a firm, or all."""

    ACCOUNTS = 1


class Subscription(NamedTuple):
    """What a subscriber asks for: events from `first` on (0: the next ones), those of some accounts or all."""

    first: int
    credit: int = MAX_CREDIT
    #: None: every event.
    accounts: frozenset[int] | Own | None = None

    def frame(self) -> bytes:
        """Return the SUBSCRIBE or SUBSCRIBE_OWN frame."""
        if self.accounts is Own.ACCOUNTS:
            return frames.encode(FrameKind.SUBSCRIBE_OWN, correlation=self.first, aux=self.credit)
        accounts = np.array(sorted(self.accounts or ()), "<u4")
        return frames.encode(
            FrameKind.SUBSCRIBE, accounts.tobytes(), len(accounts), correlation=self.first, aux=self.credit
        )


def checked_accounts(accounts: Iterable[int]) -> frozenset[int]:
    """Return the accounts of a subscription; raises ValueError for none, too many, or numbers that are no accounts."""
    found = frozenset(accounts)
    if not 1 <= len(found) <= frames.MAX_ACCOUNTS:
        raise ValueError(f"accounts: expected 1 to {frames.MAX_ACCOUNTS}, found {len(found)}")
    for account in found:
        if not 0 <= account < 1 << 32:
            raise ValueError(f"accounts: expected numbers from 0 to {(1 << 32) - 1}, found {account}")
    return found


def decode_subscription(frame: Frame) -> Subscription:
    """Return the subscription of a SUBSCRIBE or SUBSCRIBE_OWN frame. Raises FrameError for an account named twice."""
    if frame.kind is FrameKind.SUBSCRIBE_OWN:
        return Subscription(frame.correlation, min(frame.aux, MAX_CREDIT), Own.ACCOUNTS)
    accounts = np.frombuffer(frame.body, "<u4", frame.count)
    found = frozenset(accounts.tolist()) if frame.count else None
    if found is not None and len(found) != frame.count:
        raise FrameError(ErrorCode.MALFORMED_FRAME, "SUBSCRIBE: an account is named twice")
    return Subscription(frame.correlation, min(frame.aux, MAX_CREDIT), found)


def credit_frame(consumed: int) -> bytes:
    """Return a CREDIT frame for so many bytes of frames."""
    return frames.encode(FrameKind.CREDIT, aux=consumed)
