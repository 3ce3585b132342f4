"""matching-engine: a matching engine in plain Python (github.com/CtrlAltDevelop/matching-engine)."""

import platform
import sys
from typing import Any, Final

from smrx.bench.peers.peer_calls import Calls, Fills, PeerUnavailable, as_fills
from smrx.bench.peers.python_peer import PythonPeer, import_peer

_OLDEST: Final = (3, 12)


class Peer(PythonPeer):
    """Orders have the tape's numbers and commands are numbered; both are made before the clock starts."""

    def __init__(self, calls: Calls) -> None:
        super().__init__()
        if sys.version_info < _OLDEST:
            oldest = ".".join(str(part) for part in _OLDEST)
            raise PeerUnavailable(f"it needs Python {oldest} or newer, and this is Python {platform.python_version()}")
        module, self.version = import_peer("matching_engine.engine", "matching-engine")
        domain, _ = import_peer("matching_engine.domain", "matching-engine")
        events, _ = import_peer("matching_engine.events", "matching-engine")
        self._trade = events.Trade
        process = module.MatchingEngine().process
        none = domain.SelfTradePrevention.NONE
        for sequence, (cancel, buy, price, lots, number) in enumerate(calls.tolist(), 1):
            command: Any
            if cancel:
                command = domain.CancelOrder(number, 1)
            else:
                side = domain.Side.BUY if buy else domain.Side.SELL
                command = domain.NewOrder(number, 1, side, price, lots, stp=none)
            self.calls.append((process, (domain.SequencedCommand(sequence, sequence, command),)))

    def fills(self) -> Fills:
        return as_fills(
            [
                (event.maker_order_id, event.taker_order_id, event.price, event.qty)
                for caused in self.results
                for event in caused
                if type(event) is self._trade
            ]
        )
