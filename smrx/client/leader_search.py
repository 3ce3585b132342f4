"""Finding the leader: whom to ask, and whom to believe.

Pure: time is an argument, what to send is returned. Used by the session state machine only.

A node is believed only about itself: a leader is who says "I lead", in the highest term heard in this round. What a
node says about others is where to ask next. A wrong belief costs time, never correctness: the requests carry ids.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

from smrx.wire.frames import LeaderHint

#: Between rounds of pings: short against an election (0.6 to 1.2 s), long against a turn of a node.
FIRST_ROUND_S: Final = 0.02
SLOWEST_ROUND_S: Final = 0.25
#: More members than a cluster has: a node that invents addresses may not fill the memory.
MAX_ADDRESSES: Final = 64
_MAX_ADDRESS_LENGTH: Final = 256
_TRANSPORTS: Final = ("tcp://", "ipc://", "inproc://")
_NOT_ASKED: Final = "not asked yet"


class Leader(NamedTuple):
    """Who leads: where orders go, and since which term."""

    address: str
    term: int


class LeaderSearch:
    """The known addresses, what each said last, and the rounds of pings."""

    def __init__(self, addresses: Sequence[str]) -> None:
        self._said: dict[str, str] = dict.fromkeys(addresses, _NOT_ASKED)
        #: Where nodes answer queries, by order address.
        self.admin_addresses: dict[str, str] = {}
        self._ping = 0
        self._first_ping = 1
        self._highest_term = 0
        self._round_s = FIRST_ROUND_S
        self.next_round_at = 0.0

    @property
    def addresses(self) -> tuple[str, ...]:
        """Every order address known."""
        return tuple(self._said)

    def start(self, now: float) -> None:
        """Begin a search; what was answered to earlier pings counts no more."""
        self._first_ping = self._ping + 1
        self._round_s = FIRST_ROUND_S
        self._said = dict.fromkeys(self._said, _NOT_ASKED)
        # Not before the round that was due anyway: leaders that come and go may not make a storm of pings.
        self.next_round_at = max(now, min(self.next_round_at, now + FIRST_ROUND_S))

    def next_round(self, now: float) -> tuple[int, tuple[str, ...]]:
        """Return (correlation, addresses) of the pings to send now."""
        self._ping += 1
        self._highest_term = 0
        self.next_round_at = now + self._round_s
        self._round_s = min(self._round_s * 1.5, SLOWEST_ROUND_S)
        for address, said in self._said.items():
            if said == _NOT_ASKED:
                self._said[address] = "no answer"
        return self._ping, self.addresses

    def pong(self, address: str, hint: LeaderHint, correlation: int) -> Leader | None:
        """Take an answer to a ping; return the leader if this is it."""
        self.heard(address, hint)
        if correlation < self._first_ping:
            return None
        if hint.leader_id is not None:
            # The term of a node without a leader proves nothing: a cut-off candidate counts terms up alone.
            self._highest_term = max(self._highest_term, hint.term)
        if hint.leader_id != hint.node_id or hint.term < self._highest_term:
            return None
        return Leader(address, hint.term)

    def heard(self, address: str, hint: LeaderHint) -> None:
        """Remember what a node says of itself and of the others."""
        if hint.leader_id is None:
            said = f"node {hint.node_id} knows no leader (term {hint.term})"
        elif hint.leader_id == hint.node_id:
            said = f"node {hint.node_id} leads (term {hint.term})"
        else:
            said = f"node {hint.node_id} says node {hint.leader_id} leads (term {hint.term})"
        self.note(address, said)
        if hint.admin_address is not None and is_valid_address(hint.admin_address):
            self.admin_addresses[address] = hint.admin_address
        if hint.order_address is not None and is_valid_address(hint.order_address) and len(self._said) < MAX_ADDRESSES:
            self._said.setdefault(hint.order_address, _NOT_ASKED)

    def note(self, address: str, said: str) -> None:
        """Remember why an address is of no use."""
        if address in self._said:
            self._said[address] = said

    def describe(self) -> str:
        """What was tried, for people: each address with what it said last."""
        return "; ".join(f"{address}: {said}" for address, said in self._said.items())


def is_valid_address(address: str) -> bool:
    """Whether an address that a node named may be connected to."""
    return (
        len(address) <= _MAX_ADDRESS_LENGTH
        and address.isascii()
        and address.isprintable()
        and address.startswith(_TRANSPORTS)
    )
