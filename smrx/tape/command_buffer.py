"""Collect the commands of a tape; the converter and the generator write into it.

Orders are named by client_order_id, so commands can refer to orders of the tape without any answer. Ids of at most 8
characters stand in the commands; a list of commands has details for at most 65,535 longer ones. Session and request ids
stay 0 until the tape is sent.
"""

from typing import Final

import numpy as np

from smrx.tape.tape_book import Order
from smrx.tape.tape_error import TapeError
from smrx.wire.client_order_ids import pack_client_order_id
from smrx.wire.codes import CommandKind, OrderType, Side, Stp, TimeInForce
from smrx.wire.command_list import CommandList
from smrx.wire.records import COMMAND, DETAILS, ORDER_DETAILS

#: The fields that are set here; every other field of a command stays 0.
_COLUMNS: Final = (
    "kind",
    "side",
    "order_type",
    "tif",
    "stp",
    "account",
    "client_order_id",
    "details",
    "price_ticks",
    "quantity_lots",
)
#: COMMAND.details has 16 bits.
_MAX_DETAILS: Final = (1 << 16) - 1
_Row = tuple[int, int, int, int, int, int, int, int, int, int]


class CommandBuffer:
    """Commands for one instrument, in order."""

    def __init__(self, instrument: int) -> None:
        self._instrument = instrument
        self._rows: list[_Row] = []
        #: Client order ids of more than eight characters, each once, and their numbers among the details.
        self._long_ids: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._rows)

    def place(self, account: int, order: Order) -> None:
        """Append a limit order that rests."""
        order.place_command = len(self._rows)
        self._rows.append(
            (
                CommandKind.PLACE, order.side, OrderType.LIMIT, TimeInForce.GTC, Stp.CANCEL_NEWEST,
                account, *self._id(order), order.price, order.quantity,
            )
        )  # fmt: skip

    def take(self, account: int, side: Side, price: int, quantity: int) -> int:
        """Append an IOC limit order; return its index."""
        self._rows.append(
            (
                CommandKind.PLACE, side, OrderType.LIMIT, TimeInForce.IOC, Stp.CANCEL_NEWEST,
                account, 0, 0, price, quantity,
            )
        )  # fmt: skip
        return len(self._rows) - 1

    def cancel(self, account: int, order: Order) -> None:
        """Append a cancel of an order."""
        self._rows.append((CommandKind.CANCEL, 0, 0, 0, 0, account, *self._id(order), 0, 0))

    def reduce(self, account: int, order: Order) -> None:
        """Append a replace with the order's (smaller) `quantity` as its total; the order keeps its queue position."""
        self._rows.append((CommandKind.REPLACE, 0, 0, 0, 0, account, *self._id(order), order.price, order.quantity))

    def commands(self) -> CommandList:
        """Return the commands with their details."""
        records = np.zeros(len(self._rows), dtype=COMMAND)
        # Each column is converted separately, because a client order id does not fit a signed integer.
        for name, column in zip(_COLUMNS, zip(*self._rows, strict=True), strict=False):
            records[name] = np.array(column, dtype=records[name].dtype)
        records["instrument"][records["kind"] == CommandKind.PLACE] = self._instrument
        details = np.zeros(len(self._long_ids), ORDER_DETAILS)
        details["client_order_id"] = [text.encode() for text in self._long_ids]
        return CommandList(records, details.view(DETAILS))

    def _id(self, order: Order) -> tuple[int, int]:
        """Return the client order id of an order in a command, and the number of its details."""
        word, text = pack_client_order_id(order.client_order_id)
        if not text:
            return word, 0
        number = self._long_ids.setdefault(order.client_order_id, len(self._long_ids) + 1)
        if number > _MAX_DETAILS:
            raise TapeError(f"expected at most {_MAX_DETAILS} orders with an id of more than 8 characters")
        return word, number
