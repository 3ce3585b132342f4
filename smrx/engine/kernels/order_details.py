"""The details of an order: a client order id of more than 8 characters, and terms. Reads and copies them.

A record of details has the fields of ORDER_DETAILS, the text as words, wherever it is: among a command's details or in
the state's table, where an open order keeps it. Called by command_checks.py, emit.py, orders.py and state_hash.py.
"""

from typing import Any

from smrx.engine.kernels.jit import U0, Record, inlined, kernel


@inlined
def has_text(details: Record) -> Any:
    """Whether there is a client order id."""
    first = details.client_order_id_0 | details.client_order_id_1 | details.client_order_id_2
    second = details.client_order_id_3 | details.client_order_id_4 | details.client_order_id_5
    return (first | second | details.client_order_id_6 | details.client_order_id_7) != U0


@inlined
def has_terms(details: Record) -> Any:
    """Whether there is anything else."""
    if (details.stop_price_ticks | details.display_lots | details.expiry_ns) != 0:
        return True
    if (details.trailing_offset_ticks | details.peg_offset_ticks) != 0 or details.order_list_id != U0:
        return True
    return details.credential != 0 or details.peg_reference != 0


@inlined
def same_text(left: Record, right: Record) -> Any:
    """Whether two client order ids are the same."""
    first = left.client_order_id_0 ^ right.client_order_id_0
    first |= left.client_order_id_1 ^ right.client_order_id_1
    first |= left.client_order_id_2 ^ right.client_order_id_2
    first |= left.client_order_id_3 ^ right.client_order_id_3
    first |= left.client_order_id_4 ^ right.client_order_id_4
    first |= left.client_order_id_5 ^ right.client_order_id_5
    first |= left.client_order_id_6 ^ right.client_order_id_6
    first |= left.client_order_id_7 ^ right.client_order_id_7
    return first == U0


@kernel
def copy_details(source: Record, target: Record) -> None:
    """Copy everything."""
    target.client_order_id_0 = source.client_order_id_0
    target.client_order_id_1 = source.client_order_id_1
    target.client_order_id_2 = source.client_order_id_2
    target.client_order_id_3 = source.client_order_id_3
    target.client_order_id_4 = source.client_order_id_4
    target.client_order_id_5 = source.client_order_id_5
    target.client_order_id_6 = source.client_order_id_6
    target.client_order_id_7 = source.client_order_id_7
    target.stop_price_ticks = source.stop_price_ticks
    target.display_lots = source.display_lots
    target.expiry_ns = source.expiry_ns
    target.trailing_offset_ticks = source.trailing_offset_ticks
    target.peg_offset_ticks = source.peg_offset_ticks
    target.order_list_id = source.order_list_id
    target.credential = source.credential
    target.peg_reference = source.peg_reference
