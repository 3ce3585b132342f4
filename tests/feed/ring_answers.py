"""What a node answers to a request for events, at once and from a ring: a model of the publisher without sockets."""

from collections.abc import Callable

from smrx.feed.retransmission import MAX_ANSWER_EVENTS, decode_request
from smrx.node.event_ring import EventRing, claim_at
from smrx.wire import frames
from smrx.wire.frames import Frame, FrameKind


def _unknown(command: int) -> int | None:
    return None


def answer_request(ring: EventRing, frame: Frame, hash_at: Callable[[int], int | None] = _unknown) -> list[bytes]:
    """Return the frames that answer RETRANSMIT or ATTEST."""
    first, last = decode_request(frame)
    last = min(last or ring.newest, ring.newest, first + MAX_ANSWER_EVENTS - 1)
    events = ring.range(first, last)
    if events is None:
        return [frames.encode(FrameKind.UNAVAILABLE, correlation=ring.oldest, aux=ring.newest)]
    if frame.kind is FrameKind.ATTEST:
        return [frames.encode_attestation(first, [events], claim_at(ring, last, hash_at))]
    pieces = [events[start : start + frames.MAX_EVENTS] for start in range(0, len(events), frames.MAX_EVENTS)]
    return [frames.encode_events(piece, *claim_at(ring, int(piece["sequence"][-1]), hash_at)) for piece in pieces]
