"""The state hash: canonical words of every live record, their hashes, and the sum of those.

`refresh_*` bring the sum up to date after a record changed: each record keeps the hash it had, so a change costs one
hash. The words hold no slot numbers and nothing of the memory's layout. `from_scratch` does the same again from all
records, through the xxhash package and not through these kernels, so that each checks the other.
"""

from collections.abc import Iterator
from typing import Any, Final

import numpy as np
import xxhash
from numpy.typing import NDArray

from .jit import U32, Record, inlined, kernel
from .state import State
from .xxh3 import hash2, hash3, hash4, hash5, hash7, hash8, hash_events

ORDER_TAG: Final = np.uint64(1)
BALANCE_TAG: Final = np.uint64(2)
ACCOUNT_TAG: Final = np.uint64(3)
ASSET_TAG: Final = np.uint64(4)
INSTRUMENT_TAG: Final = np.uint64(5)
SESSION_TAG: Final = np.uint64(6)
TRANSFER_TAG: Final = np.uint64(7)
COUNTERS_TAG: Final = np.uint64(8)

U8: Final = np.uint64(8)
U16: Final = np.uint64(16)
U24: Final = np.uint64(24)
U40: Final = np.uint64(40)


@inlined
def pair(low: Any, high: Any) -> Any:
    """Two u32 in one word."""
    return np.uint64(low) | (np.uint64(high) << U32)


@kernel
def order_hash(order: Record) -> Any:
    return hash8(
        ORDER_TAG
        | (np.uint64(order.side) << U8)
        | (np.uint64(order.order_type) << U16)
        | (np.uint64(order.tif) << U24)
        | (np.uint64(order.stp) << U32)
        | (np.uint64(order.flags) << U40),
        order.order_id,
        pair(order.account_id, order.instrument_id),
        order.client_order_id,
        np.uint64(order.price),
        np.uint64(order.quantity),
        np.uint64(order.cum),
        order.priority,
    )


@inlined
def exchange(core: Record, record: Record, new: Any) -> None:
    """Put a record's new hash in the place of its old one."""
    core.digest += new - record.hash
    record.hash = new


@inlined
def forget(core: Record, record: Record) -> None:
    """Take a record that is about to go out of the sum."""
    core.digest -= record.hash
    record.hash = 0


@kernel
def refresh_order(core: Record, order: Record) -> None:
    if core.hashing != 0:
        exchange(core, order, order_hash(order))


@kernel
def refresh_balance(core: Record, balance: Record) -> None:
    if core.hashing != 0:
        owner = pair(balance.account_id, balance.asset_id)
        exchange(
            core, balance, hash4(BALANCE_TAG, owner, np.uint64(balance.available), np.uint64(balance.held))
        )


@kernel
def refresh_account(core: Record, account: Record) -> None:
    if core.hashing != 0:
        head = ACCOUNT_TAG | (np.uint64(account.status) << U8)
        exchange(core, account, hash2(head, np.uint64(account.account_id)))


@kernel
def refresh_asset(core: Record, asset: Record) -> None:
    if core.hashing != 0:
        head = ASSET_TAG | (np.uint64(asset.decimals) << U8)
        exchange(core, asset, hash4(head, np.uint64(asset.asset_id), asset.symbol, np.uint64(asset.supply)))


@kernel
def refresh_instrument(core: Record, instrument: Record) -> None:
    if core.hashing != 0:
        new = hash7(
            INSTRUMENT_TAG | (np.uint64(instrument.status) << U8),
            np.uint64(instrument.instrument_id),
            instrument.symbol,
            pair(instrument.base_id, instrument.quote_id),
            pair(instrument.lot_units, instrument.scale_units),
            np.uint64(instrument.max_price),
            np.uint64(instrument.max_quantity),
        )
        exchange(core, instrument, new)


@kernel
def refresh_session(core: Record, session: Record) -> None:
    if core.hashing != 0:
        owner = np.uint64(session.account_id)
        exchange(core, session, hash4(SESSION_TAG, session.session_id, owner, session.last_request_id))


@kernel
def refresh_transfer(core: Record, transfer: Record) -> None:
    if core.hashing != 0:
        head = TRANSFER_TAG | (np.uint64(transfer.kind) << U8)
        owner = pair(transfer.account_id, transfer.asset_id)
        exchange(core, transfer, hash4(head, transfer.transfer_id, owner, np.uint64(transfer.amount)))


@inlined
def counters_hash(core: Record) -> Any:
    return hash5(
        COUNTERS_TAG, core.command_sequence, core.event_sequence, core.match_sequence, np.uint64(core.time_ns)
    )


@inlined
def chain(core: Record, ring: Any, event_words: Any, first: Any, count: Any) -> None:
    """The state hash after a command, from the one before it, the content and the command's events."""
    if core.hashing != 0:
        content = core.digest + counters_hash(core)
        core.state_hash = hash3(core.state_hash, content, hash_events(event_words, first * 16, count))
        ring[core.command_sequence & np.uint64(len(ring) - 1)] = core.state_hash
