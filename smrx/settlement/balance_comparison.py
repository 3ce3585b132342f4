"""Compare the books with the balances of the nodes, wherever a node publishes a digest of its balances.

A difference is traced: the node is asked for its balances, which are true after some command, and when the books have
reached that command both are compared line by line. The first event that touched the differing account since the books
and the cluster were last equal is where to look. Nothing is committed meanwhile.

One node that differs while a majority does not is an alarm; if so many differ that no majority can agree with the
books, the run ends with BalanceDifference.
"""

import time
from typing import Final, NamedTuple

from smrx.follower.alarms import AlarmCode, Alarms
from smrx.follower.interfaces import AskNode
from smrx.settlement.ledger import Ledger
from smrx.settlement.settlement_errors import BalanceDifference
from smrx.wire.admin import Balances, BalancesReply
from smrx.wire.balance_digest import Digest
from smrx.wire.frames import FeedPosition

#: Positions kept that the books have not reached.
_MAX_WAITING: Final = 256
#: Nodes answer within milliseconds; the events up to their command arrive within the feed's lag.
_TRACE_TIMEOUT_S: Final = 5.0


class _Trace(NamedTuple):
    """A page of the balances of a node whose digest differed, true after `command`."""

    node: int
    command: int
    reply: BalancesReply
    since: float


class BalanceComparison:
    """Implements PositionCheck: compares a ledger, event by event, with what nodes publish."""

    def __init__(self, ledger: Ledger, members: int, alarms: Alarms, ask: AskNode | None) -> None:
        """members: of the cluster. Without `ask` a difference is reported but not traced to an account."""
        self.compared = 0  #: digests found equal
        self.equal_at = ledger.sequence  #: the last event after which the books and a node were equal
        self.differing: dict[int, str] = {}
        self._ledger = ledger
        self._tolerated = members - (members // 2 + 1)
        self._alarms = alarms
        self._ask = ask
        self._waiting: dict[int, list[tuple[int, Digest]]] = {}
        self._traces: list[_Trace] = []

    def add(self, node: int, position: FeedPosition) -> None:
        """See PositionCheck; a position behind the books cannot be compared and is dropped."""
        event = position.next_event - 1
        if event < self._ledger.sequence or node in self.differing or not position.claim.command_sequence:
            return
        if len(self._waiting) < _MAX_WAITING:
            self._waiting.setdefault(event, []).append((node, position.balances))

    @property
    def is_investigating(self) -> bool:
        """See PositionCheck: whether a difference is being traced."""
        return bool(self._traces)

    def stop_events(self, last_event: int) -> list[int]:
        """See PositionCheck."""
        return sorted(event for event in self._waiting if event <= last_event)

    def stop_commands(self) -> list[int]:
        """See PositionCheck."""
        return sorted({trace.command for trace in self._traces})

    def check(self) -> None:
        """See PositionCheck. Raises BalanceDifference."""
        for event in [event for event in self._waiting if event <= self._ledger.sequence]:
            digests = self._waiting.pop(event)
            if event == self._ledger.sequence:
                self._compare(digests)
        now = time.monotonic()
        for trace in list(self._traces):
            if trace.command <= self._ledger.command_sequence or now - trace.since > _TRACE_TIMEOUT_S:
                self._traces.remove(trace)
                self._finish_trace(trace)

    def _compare(self, digests: list[tuple[int, Digest]]) -> None:
        own = self._ledger.balances_digest()
        equal = [node for node, digest in digests if digest == own]
        for node, _ in digests:
            if node not in equal and node not in self.differing:
                self.differing[node] = ""
                self._start_trace(node)
        if equal and not self.differing:
            self.compared += len(equal)
            self.equal_at = self._ledger.sequence
            self._ledger.mark_equal()
        elif equal:
            self.compared += len(equal)

    def _start_trace(self, node: int) -> None:
        """Ask a node for its balances, page by page."""
        offset, more = 0, True
        while more:
            reply = self._ask(node, Balances(offset=offset)) if self._ask else None
            if not isinstance(reply, BalancesReply):
                self._report(node, f"node {node} does not answer which", None, None)
                return
            self._traces.append(_Trace(node, reply.sequence, reply, time.monotonic()))
            offset, more = offset + len(reply.rows), reply.more and bool(reply.rows)

    def _finish_trace(self, trace: _Trace) -> None:
        """Report the first balance of a page that differs; after the last page, that none was found."""
        node = trace.node
        if trace.command == self._ledger.command_sequence:
            known = {(b.account, b.asset): b for b in self._ledger.balances()}
            names = self._ledger.asset_names()
            for row in trace.reply.rows:
                books = known.get((row.account, row.asset))
                own = (books.available, books.held) if books is not None else (0, 0)
                if own == (row.available, row.held):
                    continue
                event = self._ledger.first_touched(row.account, row.asset)
                where = f"event {event} is the first that touched it" if event else "no event touched it"
                self._report(
                    node,
                    f"account {row.account}, {names.get(row.asset, row.asset)}: node {node} has {row.available} "
                    f"available and {row.held} held, the books {own[0]} and {own[1]}; {where} since both were equal "
                    f"(event {self.equal_at})",
                    row.account,
                    row.asset,
                )
                return
        if not self._traces and not self.differing[node]:
            self._report(
                node, f"node {node} has moved on since, or has a balance that the books do not have", None, None
            )

    def _report(self, node: int, what: str, account: int | None, asset: int | None) -> None:
        if self.differing[node]:
            return
        command = self._ledger.command_sequence
        message = f"balances after command {command} differ from the books: {what}"
        self.differing[node] = message
        self._alarms.report(
            AlarmCode.BALANCES_DIFFER,
            message,
            sequence=self._ledger.sequence,
            node=node,
            account=account,
            asset=asset,
        )
        if len(self.differing) > self._tolerated:
            raise BalanceDifference(self._ledger.sequence, message)
