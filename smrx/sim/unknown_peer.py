"""Forge the messages of an unknown peer: frames that claim to come from a member of the cluster.

Pure, except for the random generator passed in: what the peer may know in, a key and a frame out. There are three
kinds. The key belongs to no member, and the frame is as good as an insider could make it. Or the key is a member's, of
a computer that also serves another cluster or has a wrong node id, and the envelope shows it. Or the frame is no valid
message.
"""

import random
from typing import Final, NamedTuple

import xxhash
from msgspec import structs

from smrx.consensus import messages
from smrx.consensus.majority_clock import LATEST_NS
from smrx.consensus.messages import AppendEntries, AppendReply, Body, Envelope, PreVoteReply, RequestVote, Vote
from smrx.sim.simulated_transport import CLUSTER
from smrx.wire import batches

_UNKNOWN_KEY: Final = "?" * 40
_OTHER_CLUSTER: Final = "another simulation"
_UNKNOWN_NODE: Final = 250
#: Input that a decoder may fail at: text, arrays and binary data longer than the frame, deeply nested arrays.
_NO_MESSAGES: Final = (
    b"", b"GET / HTTP/1.1\r\n\r\n", b"\x80\x02K\x00.", b"\xdd\xff\xff\xff\xff", b"\xc6\xff\xff\xff\xff", b"\x91" * 5_000
)  # fmt: skip


class KnownState(NamedTuple):
    """What an unknown peer may know of the node it connects to, and of the member it claims to be."""

    incarnation: int
    term: int
    last_index: int
    last_term: int
    claimed: int
    claimed_incarnation: int
    #: The public key of the claimed member.
    claimed_key: str


def forge_message(rng: random.Random, known: KnownState, overheard: list[bytes]) -> tuple[str, bytes]:
    """Return a key and a frame. `overheard` is frames that members sent to the node: the peer may send them again."""
    draw = rng.random()
    if draw < 0.1:
        return rng.choice((_UNKNOWN_KEY, known.claimed_key)), rng.choice(_NO_MESSAGES)
    if draw < 0.2 and overheard:
        frame = rng.choice(overheard)
        return rng.choice((_UNKNOWN_KEY, known.claimed_key)), frame[: rng.randrange(len(frame))]
    body, term = _forge_body(rng, known)
    envelope = Envelope(
        messages.PROTOCOL,
        messages.cluster_number(CLUSTER),
        known.claimed,
        known.claimed_incarnation,
        known.incarnation,
        term,
        0,
        0,
        xxhash.xxh3_64_intdigest(b""),
        LATEST_NS,
        1 << 60,
        body,
    )
    if draw < 0.7:
        return _UNKNOWN_KEY, messages.encode(envelope)
    if draw < 0.9:
        other_cluster = messages.cluster_number(_OTHER_CLUSTER)
        return known.claimed_key, messages.encode(structs.replace(envelope, cluster=other_cluster))
    return known.claimed_key, messages.encode(structs.replace(envelope, sender=_UNKNOWN_NODE))


def _forge_body(rng: random.Random, known: KnownState) -> tuple[Body, int]:
    """Return the body of a message, and its term."""
    kind = rng.randrange(5)
    if kind == 0:
        return Vote(known.term), known.term
    if kind == 1:
        return AppendReply(known.last_index + 1, False, True, 0), known.term
    if kind == 2:
        return PreVoteReply(1), known.term
    if kind == 3:
        return RequestVote(known.last_index + 100, known.term), known.term + 1
    term = known.term + rng.choice((0, 1))
    entry = batches.encode([], 0, 0, 0)
    index = known.last_index + 1
    return AppendEntries(known.last_index, known.last_term, index, index, 0, False, [(entry, index, term)]), term
