"""Check that the nodes continue the history that an earlier run has settled.

The anchor is where that run ended. Each node must confirm it before its events count: by the digest of the last event,
by a claim of the same state hash, or by no longer holding that event. Sans I/O. Called by the quorum.
"""

from typing import NamedTuple

from smrx.feed.feed_errors import Disagreement
from smrx.feed.retransmission import Request
from smrx.wire.frames import Claim


class Anchor(NamedTuple):
    """The last event of an earlier run, its digest, and the claim of the state after its command (0: unknown)."""

    event_sequence: int
    event_digest: int
    claim: Claim


class AnchorCheck:
    """Which nodes have confirmed the anchor."""

    def __init__(self, anchor: Anchor | None, old_feed_timeout_s: float) -> None:
        """Check against an anchor; without one every node is confirmed from the start."""
        self._anchor = anchor
        self._confirmed: set[int] = set()
        self._old_feed_timeout_s = old_feed_timeout_s
        self._old_since: float | None = None

    def is_confirmed(self, node: int) -> bool:
        """Whether the node has confirmed the anchor, or can no longer do so."""
        return self._anchor is None or node in self._confirmed

    def request(self, node: int) -> Request | None:
        """Return the request for the digest of the anchor's event, None if the node has confirmed it."""
        if self._anchor is None or node in self._confirmed:
            return None
        return Request(node, self._anchor.event_sequence, self._anchor.event_sequence, digest=True)

    def is_answer(self, node: int, first: int, last: int) -> bool:
        """Whether a digest of events first..last is the answer to request()."""
        anchor = self._anchor
        return anchor is not None and node not in self._confirmed and first == last == anchor.event_sequence

    def check_answer(self, node: int, digest: int, claim: Claim) -> str | None:
        """Check a node's digest of the anchor's event; return what differs, None if nothing does."""
        anchor = self._anchor
        if anchor is None:
            return None
        self._confirmed.add(node)
        if anchor.event_digest not in (0, digest):
            return f"event {anchor.event_sequence} is another one"
        return self.check_claim(node, claim)

    def check_claim(self, node: int, claim: Claim) -> str | None:
        """Check a claim, if it is about the anchor's command; return what differs, None if nothing does."""
        anchor = self._anchor
        if anchor is None or claim.command_sequence != anchor.claim.command_sequence:
            return None
        self._confirmed.add(node)
        if anchor.claim.state_hash in (0, claim.state_hash):
            return None
        return (
            f"after command {claim.command_sequence} its state hash is {claim.state_hash:016x}, settled was "
            f"{anchor.claim.state_hash:016x}"
        )

    def note_oldest(self, node: int, oldest: int) -> None:
        """Record the oldest event a node holds: one that no longer holds the anchor's event cannot be checked."""
        if self._anchor is not None and oldest > self._anchor.event_sequence:
            self._confirmed.add(node)

    def watch_for_old_feed(self, newest: dict[int, int], tolerated: int, now: float) -> None:
        """Raise Disagreement if too many nodes stay before the anchor for too long: the feed is an older one.

        newest: the newest event that each node has announced. tolerated: how many nodes may stay behind.
        Nodes that restart are behind for a while as well.
        """
        anchor = self._anchor
        if anchor is None:
            return
        behind = {node: last for node, last in newest.items() if last < anchor.event_sequence}
        if len(behind) <= tolerated:
            self._old_since = None
        elif self._old_since is None:
            self._old_since = now
        elif now - self._old_since >= self._old_feed_timeout_s:
            ends = ", ".join(f"node {node} ends at event {last}" for node, last in sorted(behind.items()))
            raise Disagreement(f"the feed is older than what is settled, up to event {anchor.event_sequence}: {ends}")

    def extend_deadlines(self, seconds: float) -> None:
        """Do not count `seconds` in which nothing was received."""
        if self._old_since is not None:
            self._old_since += seconds
