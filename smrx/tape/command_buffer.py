"""A growing array of commands: what converters and generators write into, with nothing to know about the cluster.

Orders are named by client_order_id, so a stream refers to its own orders without waiting for any answer. Session and
request ids stay 0 until the stream is sent.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from smrx.tape.tape_book import Order
from smrx.wire.codes import CommandKind, OrderType, Side, Stp, TimeInForce
from smrx.wire.records import COMMAND

#: The columns written here; every other field of a command stays 0.
_COLUMNS: Final = (
    "kind",
    "side",
    "order_type",
    "tif",
    "stp",
    "account",
    "client_order_id",
    "price_ticks",
    "quantity_lots",
)
_Row = tuple[int, int, int, int, int, int, int, int, int]


class CommandList:
    """Commands for one instrument, in order."""

    def __init__(self, instrument: int) -> None:
        self._instrument = instrument
        self._rows: list[_Row] = []

    def __len__(self) -> int:
        return len(self._rows)

    def place(self, account: int, order: Order) -> None:
        """A limit order that rests."""
        order.place_command = len(self._rows)
        self._rows.append(
            (
                CommandKind.PLACE, order.side, OrderType.LIMIT, TimeInForce.GTC, Stp.CANCEL_NEWEST,
                account, order.client_order_id, order.price, order.quantity,
            )
        )  # fmt: skip

    def take(self, account: int, side: Side, price: int, quantity: int) -> int:
        """A limit order that takes what it can at once; return its index."""
        self._rows.append(
            (
                CommandKind.PLACE, side, OrderType.LIMIT, TimeInForce.IOC, Stp.CANCEL_NEWEST,
                account, 0, price, quantity,
            )
        )  # fmt: skip
        return len(self._rows) - 1

    def cancel(self, account: int, order: Order) -> None:
        """The whole rest of an order goes."""
        self._rows.append((CommandKind.CANCEL, 0, 0, 0, 0, account, order.client_order_id, 0, 0))

    def shrink(self, account: int, order: Order) -> None:
        """An order keeps its place and gets its (smaller) `quantity` as its total."""
        self._rows.append(
            (CommandKind.REPLACE, 0, 0, 0, 0, account, order.client_order_id, order.price, order.quantity)
        )

    def array(self) -> NDArray[np.void]:
        """The commands as records."""
        records = np.zeros(len(self._rows), dtype=COMMAND)
        # Client order ids pass 2^63, which is why every column is converted on its own.
        for name, column in zip(_COLUMNS, zip(*self._rows, strict=True), strict=False):
            records[name] = np.array(column, dtype=records[name].dtype)
        records["instrument"][records["kind"] == CommandKind.PLACE] = self._instrument
        return records
