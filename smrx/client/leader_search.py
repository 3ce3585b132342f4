"""Find the leader by pinging all known nodes in rounds.

Used by ClientSession only. Time is an argument and the pings are returned, so there is no clock and no I/O here.

A node counts as the leader if it reports itself as the leader, in the highest term reported in the round. What it
reports about another node only adds an address to ask. A wrong result costs time but not correctness, because every
request carries its id.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

from smrx.config import ORDERS_SCHEME
from smrx.wire.frames import LeaderHint

#: Interval between rounds of pings: short against an election (0.6 to 1.2 s), long against one turn of a node.
INITIAL_ROUND_S: Final = 0.02
MAX_ROUND_S: Final = 0.25
#: More than any cluster has members; bounds the memory that a node reporting false addresses can take.
MAX_ADDRESSES: Final = 64
_MAX_ADDRESS_LENGTH: Final = 256
_TRANSPORTS: Final = ("tcp://", "ipc://", "inproc://", ORDERS_SCHEME)
_NOT_ASKED: Final = "not asked yet"


class Leader(NamedTuple):
    """The order entry address of the leader, and its term."""

    address: str
    term: int


class LeaderSearch:
    """The known order entry addresses, the last status of each, and the rounds of pings."""

    def __init__(self, addresses: Sequence[str]) -> None:
        self._status: dict[str, str] = dict.fromkeys(addresses, _NOT_ASKED)
        #: Admin address by order entry address.
        self.admin_addresses: dict[str, str] = {}
        self._ping = 0
        self._first_ping = 1
        self._highest_term = 0
        self._round_s = INITIAL_ROUND_S
        self.next_round_at = 0.0

    @property
    def addresses(self) -> tuple[str, ...]:
        """All known order entry addresses."""
        return tuple(self._status)

    def start(self, now: float) -> None:
        """Start a search. Replies to earlier pings no longer count."""
        self._first_ping = self._ping + 1
        self._round_s = INITIAL_ROUND_S
        self._status = dict.fromkeys(self._status, _NOT_ASKED)
        # Not earlier than the round that was due anyway, so that frequent leader changes do not multiply the pings.
        self.next_round_at = max(now, min(self.next_round_at, now + INITIAL_ROUND_S))

    def next_round(self, now: float) -> tuple[int, tuple[str, ...]]:
        """Return the correlation and the addresses of the pings to send now."""
        self._ping += 1
        self._highest_term = 0
        self.next_round_at = now + self._round_s
        self._round_s = min(self._round_s * 1.5, MAX_ROUND_S)
        for address, status in self._status.items():
            if status == _NOT_ASKED:
                self._status[address] = "no answer"
        return self._ping, self.addresses

    def on_pong(self, address: str, hint: LeaderHint, correlation: int) -> Leader | None:
        """Process the reply to a ping. Return the leader if the node at `address` is it."""
        self.record_hint(address, hint)
        if correlation < self._first_ping:
            return None
        if hint.leader_id is not None:
            # The term of a node without a leader does not count: a partitioned candidate raises its term alone.
            self._highest_term = max(self._highest_term, hint.term)
        if hint.leader_id != hint.node_id or hint.term < self._highest_term:
            return None
        return Leader(address, hint.term)

    def record_hint(self, address: str, hint: LeaderHint) -> None:
        """Record what a node reports about itself and about the leader."""
        if hint.leader_id is None:
            status = f"node {hint.node_id} knows no leader (term {hint.term})"
        elif hint.leader_id == hint.node_id:
            status = f"node {hint.node_id} leads (term {hint.term})"
        else:
            status = f"node {hint.node_id} reports node {hint.leader_id} as the leader (term {hint.term})"
        self.set_status(address, status)
        if hint.admin_address is not None and is_valid_address(hint.admin_address):
            self.admin_addresses[address] = hint.admin_address
        leader = leader_address(address, hint)
        if leader is not None and len(self._status) < MAX_ADDRESSES:
            self._status.setdefault(leader, _NOT_ASKED)

    def set_status(self, address: str, status: str) -> None:
        """Record the status of a known address, for error messages."""
        if address in self._status:
            self._status[address] = status

    def describe_one(self, address: str) -> str:
        """Return an address with its last status, for error messages."""
        return f"{address}: {self._status.get(address, _NOT_ASKED)}"

    def describe(self) -> str:
        """Return every address with its last status, for error messages."""
        return "; ".join(f"{address}: {status}" for address, status in self._status.items())


def leader_address(address: str, hint: LeaderHint) -> str | None:
    """Return where the leader takes orders over the transport of the node at `address`, None if that is not said."""
    leader = hint.order_tcp_address if address.startswith(ORDERS_SCHEME) else hint.order_address
    return leader if leader is not None and is_valid_address(leader) else None


def is_valid_address(address: str) -> bool:
    """Return whether an address that a node reported may be connected to."""
    return (
        len(address) <= _MAX_ADDRESS_LENGTH
        and address.isascii()
        and address.isprintable()
        and address.startswith(_TRANSPORTS)
    )
