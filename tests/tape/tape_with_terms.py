"""A generated tape whose orders have long client order ids and terms."""

import numpy as np

from smrx.tape.tape_file import Tape
from smrx.wire.codes import CommandKind, TimeInForce
from smrx.wire.command_list import CommandList
from smrx.wire.records import DETAILS, ORDER_DETAILS

#: No order expires before its tape ends.
_LATER_NS = 1 << 61


def with_terms(tape: Tape) -> Tape:
    """Return the tape with a longer id for each order and an expiry for every tenth, which change no trade."""
    records = tape.commands.copy()
    texts = records["client_order_id"].tolist()
    named = np.flatnonzero(records["client_order_id"])
    details = np.zeros(len(named), ORDER_DETAILS)
    details["client_order_id"] = [b"order number " + str(texts[at]).encode() for at in named]
    placed = records["kind"][named] == CommandKind.PLACE
    expiring = placed & (np.arange(len(named)) % 10 == 0)
    records["tif"][named[expiring]] = TimeInForce.GTD
    details["expiry_ns"][expiring] = _LATER_NS
    records["client_order_id"] = 0
    records["details"][named] = np.arange(1, len(named) + 1)
    return tape._replace(
        flow=CommandList(records, details.view(DETAILS)),
    )
