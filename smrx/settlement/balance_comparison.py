"""The books against the cluster's balances, at every place of the feed where a node says what its balances digest to.

A difference is named: the node is asked for its balances, which are true as of some command, and when the books have
come to that command they are compared line by line; the first event that touched the account since the books and the
cluster were last equal is where to look. Nothing is committed meanwhile.

One node that differs while a majority does not is an alarm; so many that no majority can agree with the books, the end.
"""

import time
from collections.abc import Callable
from typing import Final, NamedTuple

from smrx.settlement.follower.alarms import AlarmCode, Alarms
from smrx.settlement.ledger import Ledger
from smrx.settlement.settlement_errors import BalanceDifference
from smrx.wire.admin import AnyReply, AnyRequest, Balances, BalancesReply
from smrx.wire.balance_digest import Digest
from smrx.wire.frames import FeedPosition

#: Positions remembered that the books have not come to.
_MAX_WAITING: Final = 256
#: Nodes answer within milliseconds; the commands until then come within the feed's lag.
_NAMING_SECONDS: Final = 5.0

#: Asks one node's admin socket; None when it gives no answer in time.
Ask = Callable[[int, AnyRequest], AnyReply | None]


class _Suspicion(NamedTuple):
    """A node whose digest differed, and a page of its balances as of `command`."""

    node: int
    command: int
    reply: BalancesReply
    since: float


class Comparison:
    """Compares a ledger, as it goes along, with what nodes say."""

    def __init__(self, ledger: Ledger, members: int, alarms: Alarms, ask: Ask | None) -> None:
        """`members` of the cluster; without `ask` a difference is told but not named to the account."""
        self.compared = 0  #: digests found equal
        self.equal_at = ledger.sequence  #: the last event after which books and a node were equal
        self.differing: dict[int, str] = {}
        self._ledger = ledger
        self._tolerated = members - (members // 2 + 1)
        self._alarms = alarms
        self._ask = ask
        self._waiting: dict[int, list[tuple[int, Digest]]] = {}
        self._suspicions: list[_Suspicion] = []

    def add(self, node: int, position: FeedPosition) -> None:
        """Remember what a node said; one that is behind the books cannot be compared."""
        event = position.next_event - 1
        if event < self._ledger.sequence or node in self.differing or not position.claim.command_sequence:
            return
        if len(self._waiting) < _MAX_WAITING:
            self._waiting.setdefault(event, []).append((node, position.balances))

    @property
    def naming(self) -> bool:
        """Whether a difference is being named: nothing may be committed."""
        return bool(self._suspicions)

    def stops(self, last_event: int) -> list[int]:
        """The events up to `last_event` at which the books must stand still to be compared, in order."""
        return sorted(event for event in self._waiting if event <= last_event)

    def stop_commands(self) -> list[int]:
        """The commands after which they must stand still too."""
        return sorted({suspicion.command for suspicion in self._suspicions})

    def check(self) -> None:
        """Compare what can be compared where the books stand now. Raises BalanceDifference."""
        for event in [event for event in self._waiting if event <= self._ledger.sequence]:
            said = self._waiting.pop(event)
            if event == self._ledger.sequence:
                self._compare(said)
        now = time.monotonic()
        for suspicion in list(self._suspicions):
            if suspicion.command <= self._ledger.command_sequence or now - suspicion.since > _NAMING_SECONDS:
                self._suspicions.remove(suspicion)
                self._name(suspicion)

    def _compare(self, said: list[tuple[int, Digest]]) -> None:
        own = self._ledger.balances_digest()
        agree = [node for node, digest in said if digest == own]
        for node, _ in said:
            if node not in agree and node not in self.differing:
                self.differing[node] = ""
                self._suspect(node)
        if agree and not self.differing:
            self.compared += len(agree)
            self.equal_at = self._ledger.sequence
            self._ledger.mark_equal()
        elif agree:
            self.compared += len(agree)

    def _suspect(self, node: int) -> None:
        """Ask a node for its balances, page by page."""
        offset, more = 0, True
        while more:
            reply = self._ask(node, Balances(offset=offset)) if self._ask else None
            if not isinstance(reply, BalancesReply):
                self._tell(node, f"node {node} does not say which", None, None)
                return
            self._suspicions.append(_Suspicion(node, reply.sequence, reply, time.monotonic()))
            offset, more = offset + len(reply.rows), reply.more and bool(reply.rows)

    def _name(self, suspicion: _Suspicion) -> None:
        node = suspicion.node
        if suspicion.command == self._ledger.command_sequence:
            known = {(b.account, b.asset): b for b in self._ledger.balances()}
            names = self._ledger.asset_names()
            for row in suspicion.reply.rows:
                books = known.get((row.account, row.asset))
                own = (books.available, books.held) if books is not None else (0, 0)
                if own == (row.available, row.held):
                    continue
                event = self._ledger.first_touched(row.account, row.asset)
                where = f"event {event} is the first that touched it" if event else "no event touched it"
                self._tell(
                    node,
                    f"account {row.account}, {names.get(row.asset, row.asset)}: node {node} has {row.available} "
                    f"available and {row.held} held, the books {own[0]} and {own[1]}; {where} since both were equal "
                    f"(event {self.equal_at})",
                    row.account,
                    row.asset,
                )
                return
        if not self._suspicions and not self.differing[node]:
            self._tell(node, f"node {node} has moved on since, or has a balance the books do not know", None, None)

    def _tell(self, node: int, what: str, account: int | None, asset: int | None) -> None:
        if self.differing[node]:
            return
        command = self._ledger.command_sequence
        message = f"balances after command {command} differ from the books: {what}"
        self.differing[node] = message
        self._alarms.say(
            AlarmCode.BALANCES_DIFFER,
            message,
            sequence=self._ledger.sequence,
            node=node,
            account=account,
            asset=asset,
        )
        if len(self.differing) > self._tolerated:
            raise BalanceDifference(self._ledger.sequence, message)
