"""Trade through a gateway with the calls of the SDK that the honest client makes.

Owns a connection, which it makes anew after an error. Used by honest_client.py.
"""

import secrets
from typing import Final, NamedTuple

import numpy as np

from cluster.siege import siege_market
from cluster.siege.gateway_connection import GatewayConnection
from smrx.client.client_errors import Unavailable
from smrx.wire.codes import CommandKind, EventKind, OrderType, Side, TimeInForce
from smrx.wire.records import COMMAND

_TICKS: Final = 100
_LOTS: Final = 10_000
_STATES: Final = {int(EventKind.NEW): "New", int(EventKind.CANCELLED): "Cancelled"}


class Traded(NamedTuple):
    """What the honest client looks at in an answer; see smrx.client.results.OrderResult."""

    state: str
    remaining: str
    order_id: int
    cum_lots: int


class GatewayTrader:
    """A client of one gateway."""

    def __init__(self, address: str, account: int, timeout_s: float) -> None:
        self._address, self._account, self._timeout_s = address, account, timeout_s
        self._session = secrets.randbits(31)
        self._connection: GatewayConnection | None = None

    def place_limit(self, symbol: str, side: str, price: str, quantity: str) -> Traded:
        """Buy at a limit; `symbol` and `side` are those of the market of the siege."""
        order = np.zeros(1, COMMAND)
        order["kind"], order["account"], order["instrument"] = CommandKind.PLACE, self._account, siege_market.INSTRUMENT
        order["side"], order["order_type"], order["tif"] = Side.BUY, OrderType.LIMIT, TimeInForce.GTC
        order["price_ticks"] = round(float(price) * _TICKS)
        order["quantity_lots"] = round(float(quantity) * _LOTS)
        return self._ask(order)

    def cancel(self, *, order_id: int) -> Traded:
        """Cancel an order."""
        command = np.zeros(1, COMMAND)
        command["kind"], command["account"], command["order_id"] = CommandKind.CANCEL, self._account, order_id
        return self._ask(command)

    def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _ask(self, command: "np.ndarray[tuple[int], np.dtype[np.void]]") -> Traded:
        try:
            if self._connection is None:
                self._connection = GatewayConnection(self._address, self._timeout_s)
                self._connection.log_in("honest")
                self._connection.open_session(self._session, self._account)
            outcome = self._connection.ask(command)
        except OSError as error:
            self.close()
            raise Unavailable(f"the gateway at {self._address}: {error}") from None
        lots = int(outcome["leaves_lots"])
        state = _STATES.get(int(outcome["event_kind"]), f"reason {outcome['reason']}")
        return Traded(state, f"{lots / _LOTS:.4f}", int(outcome["order_id"]), int(outcome["cum_lots"]))
