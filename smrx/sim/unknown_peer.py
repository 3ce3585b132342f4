"""What somebody says who is no member of this cluster: frames that claim to be a member's.

Pure but for chance: what a stranger may know in, a key and a frame out. Either the key is no member's, and the frame as
good as a traitor could make it; or the key is right, of a machine that serves another cluster too or has a number that
it should not have, and then the envelope says so; or it is no message at all.
"""

import random
from typing import Final, NamedTuple

import xxhash
from msgspec import structs

from smrx.consensus import messages
from smrx.consensus.messages import AppendEntries, AppendReply, Body, Envelope, PreVoteReply, RequestVote, Vote
from smrx.sim.simulated_transport import CLUSTER
from smrx.wire import batches

_NOBODYS_KEY: Final = "?" * 40
_OTHER_CLUSTER: Final = "another simulation"
_NO_MEMBER: Final = 250
#: What a decoder may choke on: text, arrays and binary data longer than the frame, arrays in arrays.
_NO_MESSAGES: Final = (
    b"", b"GET / HTTP/1.1\r\n\r\n", b"\x80\x02K\x00.", b"\xdd\xff\xff\xff\xff", b"\xc6\xff\xff\xff\xff", b"\x91" * 5_000
)  # fmt: skip


class Ear(NamedTuple):
    """The node that is lied to: what a stranger could have learned of it, and of the member he claims to be."""

    incarnation: int
    term: int
    last_index: int
    last_term: int
    claimed: int
    claimed_incarnation: int
    #: The key that this member has.
    claimed_key: str


def lie(chance: random.Random, ear: Ear, heard: list[bytes]) -> tuple[str, bytes]:
    """A key and a frame; `heard` is what members said to the node, for a stranger who says it again."""
    draw = chance.random()
    if draw < 0.1:
        return chance.choice((_NOBODYS_KEY, ear.claimed_key)), chance.choice(_NO_MESSAGES)
    if draw < 0.2 and heard:
        whole = chance.choice(heard)
        return chance.choice((_NOBODYS_KEY, ear.claimed_key)), whole[: chance.randrange(len(whole))]
    body, term = _body(chance, ear)
    envelope = Envelope(
        messages.PROTOCOL,
        messages.cluster_number(CLUSTER),
        ear.claimed,
        ear.claimed_incarnation,
        ear.incarnation,
        term,
        0,
        0,
        xxhash.xxh3_64_intdigest(b""),
        body,
    )
    if draw < 0.7:
        return _NOBODYS_KEY, messages.encode(envelope)
    if draw < 0.9:
        number = messages.cluster_number(_OTHER_CLUSTER)
        return ear.claimed_key, messages.encode(_changed(envelope, cluster=number))
    return ear.claimed_key, messages.encode(_changed(envelope, sender=_NO_MEMBER))


def _changed(envelope: Envelope, **changes: int) -> Envelope:
    return structs.replace(envelope, **changes)


def _body(chance: random.Random, ear: Ear) -> tuple[Body, int]:
    """What is said, and in which term."""
    kind = chance.randrange(5)
    if kind == 0:
        return Vote(ear.term), ear.term
    if kind == 1:
        return AppendReply(ear.last_index + 1, False, True, 0), ear.term
    if kind == 2:
        return PreVoteReply(1), ear.term
    if kind == 3:
        return RequestVote(ear.last_index + 100, ear.term), ear.term + 1
    term = ear.term + chance.choice((0, 1))
    entry = batches.encode([], 0, 0, 0)
    index = ear.last_index + 1
    return AppendEntries(ear.last_index, ear.last_term, index, index, 0, False, [(entry, index, term)]), term
