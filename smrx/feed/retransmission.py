"""Requests for events that a subscriber lost: their limits, and their frames.

A subscriber to every event sends RETRANSMIT (send the events again) or ATTEST (send their digest) to a node's events
socket. A node answers with EVENTS frames, as far as the credit of the subscription goes, one ATTESTATION frame, or
UNAVAILABLE. A later request takes the place of an unanswered one of the same kind. Sans I/O. Used by both sides: the
sequencer and the quorum encode requests, the node (node/publisher.py) decodes and answers them.
"""

from typing import Final, NamedTuple

from smrx.wire import frames
from smrx.wire.frames import ErrorCode, Frame, FrameError, FrameKind

#: The longest range that one request returns in full (4 MiB). A subscriber that joins late asks for its history piece
#: by piece; each piece fits its window (sequencer.py).
MAX_ANSWER_EVENTS: Final = 1 << 15


class Request(NamedTuple):
    """Ask `node` for events first..last, or with `digest` for their digest only."""

    node: int
    first: int
    last: int
    digest: bool = False

    def frame(self) -> bytes:
        """Return the RETRANSMIT or ATTEST frame."""
        kind = FrameKind.ATTEST if self.digest else FrameKind.RETRANSMIT
        return frames.encode(kind, correlation=self.first, aux=self.last)


def decode_request(frame: Frame) -> tuple[int, int]:
    """Return the range (first, last) that a request asks for; last is 0 for "up to the newest".

    Raises FrameError for any other frame, and for a range that ends before it begins.
    """
    first, last = frame.correlation, frame.aux
    if frame.kind not in (FrameKind.RETRANSMIT, FrameKind.ATTEST):
        raise FrameError(ErrorCode.MALFORMED_FRAME, f"expected a RETRANSMIT or ATTEST frame, found {frame.kind.name}")
    if first < 1 or (last != 0 and last < first):
        raise FrameError(ErrorCode.MALFORMED_FRAME, f"expected a range of events, found {first} to {last}")
    return first, last
