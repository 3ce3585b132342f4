"""Collect the commands of a tape; the converter and the generator write into it.

Orders are named by client_order_id, so commands can refer to orders of the tape without any answer. Session and request
ids stay 0 until the tape is sent.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from smrx.tape.tape_book import Order
from smrx.wire.codes import CommandKind, OrderType, Side, Stp, TimeInForce
from smrx.wire.records import COMMAND

#: The fields that are set here; every other field of a command stays 0.
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


class CommandBuffer:
    """Commands for one instrument, in order."""

    def __init__(self, instrument: int) -> None:
        self._instrument = instrument
        self._rows: list[_Row] = []

    def __len__(self) -> int:
        return len(self._rows)

    def place(self, account: int, order: Order) -> None:
        """Append a limit order that rests."""
        order.place_command = len(self._rows)
        self._rows.append(
            (
                CommandKind.PLACE, order.side, OrderType.LIMIT, TimeInForce.GTC, Stp.CANCEL_NEWEST,
                account, order.client_order_id, order.price, order.quantity,
            )
        )  # fmt: skip

    def take(self, account: int, side: Side, price: int, quantity: int) -> int:
        """Append an IOC limit order; return its index."""
        self._rows.append(
            (
                CommandKind.PLACE, side, OrderType.LIMIT, TimeInForce.IOC, Stp.CANCEL_NEWEST,
                account, 0, price, quantity,
            )
        )  # fmt: skip
        return len(self._rows) - 1

    def cancel(self, account: int, order: Order) -> None:
        """Append a cancel of an order."""
        self._rows.append((CommandKind.CANCEL, 0, 0, 0, 0, account, order.client_order_id, 0, 0))

    def reduce(self, account: int, order: Order) -> None:
        """Append a replace with the order's (smaller) `quantity` as its total; the order keeps its queue position."""
        self._rows.append(
            (CommandKind.REPLACE, 0, 0, 0, 0, account, order.client_order_id, order.price, order.quantity)
        )

    def array(self) -> NDArray[np.void]:
        """Return the commands as records."""
        records = np.zeros(len(self._rows), dtype=COMMAND)
        # Each column is converted separately, because client order ids may be 2^63 and above.
        for name, column in zip(_COLUMNS, zip(*self._rows, strict=True), strict=False):
            records[name] = np.array(column, dtype=records[name].dtype)
        records["instrument"][records["kind"] == CommandKind.PLACE] = self._instrument
        return records
