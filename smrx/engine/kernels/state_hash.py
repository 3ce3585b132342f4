"""Compute the state hash: from the sum of the hashes of all live records, and the command's events.

`update_state_hash` computes it after each command. `refresh_*` update the sum after a record changed: each record
stores its hash, so a change costs one hash. The hashed words contain no slot numbers and nothing of the memory layout.
smrx/engine/checks/full_hash.py computes the same sum from all records with NumPy, so that each checks the other.

The words of each record, all u64, signed numbers in two's complement; a record's hash is their xxh3_64:

    order       1 | side<<8 | order_type<<16 | tif<<24 | stp<<32 | flags<<40, order_id, account | instrument<<32,
                client_order_id, price, quantity, cum, priority
    extension   9, order_id, shown, session_id: of an order in which one of the last two is not 0
    long id     13, order_id, the 8 words of its client order id: of an order whose id has more than 8 characters
    terms       14, order_id, stop_price, display, expiry, trailing_offset, peg_offset, order_list_id,
                credential | peg_reference<<32: of an order in which one of the last seven is not 0
    balance     2, account | asset<<32, available, held
    account     3 | status<<8, account
    limits      10, account | max_open_orders<<32, max_open_notional, max_order_notional, max_order_quantity: if any is
                set
    asset       4 | decimals<<8, asset, the 2 words of its symbol, supply, cap
    instrument  5 | status<<8, instrument, the 3 words of its symbol, base | quote<<32, lot_units | scale_units<<32,
                max_price, max_quantity
    rules       11 | band_bp<<8 | collar_bp<<24 | collar_reference<<40 | rule_flags<<48, instrument,
                taker_fee | maker_fee<<32, min_price, min_quantity, min_notional, max_notional: if any is set
    last price  12 | instrument<<32, price: from the first trade on
    session     6 | flags<<8 | closed<<16 | run<<24 | account<<32, session_id, last_active_ns, activity
    transfer    7 | kind<<8, transfer_id, account | asset<<32, amount, time_ns, sequence
    chain       16 + status | event_kind<<8 | reason<<16 | event_count<<32, previous chain ^ session_id, request_id +
                content, sequence, order_id, first_event, cum_lots, leaves_lots: of a session's newest answer; 0 before
                the first
    opened by   20 | credential<<32, session_id: of a session that was opened with a credential
    credential  21 | scope<<8 | revoked<<16 | prefixes<<32, number | permissions<<32, subject, expires_ns, the 4 words
                of its key
    networks    23, number, the 8 words of its networks: of a credential with any
    firm        22, account | firm<<32: of an account of a firm
    retention   15, session_silence_s | transfer_age_s<<32, transfers
    capacity    24, accounts | orders<<32, balances | sessions<<32, answers | instruments<<32, assets | credentials<<32:
                unless all of them are the defaults
    counters    8 | killed<<8 | (rules_version - 1)<<16, command_sequence, event_sequence, match_sequence, time_ns

The records of one slot (an order, its extension, its long id and its terms; an instrument, its rules and its last
price; an account, its limits and its firm; a credential and its networks; a session, who opened it and its chain) store
one hash, the sum of theirs.
"""

from typing import Any, Final

import numpy as np

from smrx.engine.kernels.jit import (
    U0,
    U1,
    U32,
    Record,
    Tables,
    inlined,
    kernel,
    view_as,
)
from smrx.engine.kernels.layouts import ORDER_WORDS
from smrx.engine.kernels.order_details import has_terms, has_text
from smrx.engine.kernels.xxh3 import (
    hash2,
    hash3,
    hash4,
    hash5,
    hash6,
    hash7,
    hash8,
    hash9,
    hash10,
    hash_events,
)
from smrx.engine.state import FIRST_RULES
from smrx.wire.records import MAX_CAPACITY, MAX_KEPT_ANSWERS

ORDER_TAG: Final = np.uint64(1)
BALANCE_TAG: Final = np.uint64(2)
ACCOUNT_TAG: Final = np.uint64(3)
ASSET_TAG: Final = np.uint64(4)
INSTRUMENT_TAG: Final = np.uint64(5)
SESSION_TAG: Final = np.uint64(6)
TRANSFER_TAG: Final = np.uint64(7)
COUNTERS_TAG: Final = np.uint64(8)
EXTENSION_TAG: Final = np.uint64(9)
LIMITS_TAG: Final = np.uint64(10)
RULES_TAG: Final = np.uint64(11)
PRICE_TAG: Final = np.uint64(12)
LONG_ID_TAG: Final = np.uint64(13)
TERMS_TAG: Final = np.uint64(14)
RETENTION_TAG: Final = np.uint64(15)
# 16 to 19 are those of chains, see answers.py.
OPENED_BY_TAG: Final = np.uint64(20)
CREDENTIAL_TAG: Final = np.uint64(21)
FIRM_TAG: Final = np.uint64(22)
NETWORKS_TAG: Final = np.uint64(23)
CAPACITY_TAG: Final = np.uint64(24)
#: Two capacities in a word: the defaults, see capacity_hash.
DEFAULT_PAIR: Final = np.uint64(MAX_CAPACITY | MAX_CAPACITY << 32)
DEFAULT_ANSWERS_PAIR: Final = np.uint64(MAX_KEPT_ANSWERS | MAX_CAPACITY << 32)

#: The bytes of an order's side, type, time in force, self-trade prevention and flags, in a word.
TERMS: Final = np.uint64(0xFF_FFFF_FFFF)

U8: Final = np.uint64(8)
U16: Final = np.uint64(16)
U24: Final = np.uint64(24)
U40: Final = np.uint64(40)
U48: Final = np.uint64(48)


@inlined
def pack_pair(low: Any, high: Any) -> Any:
    """Pack two u32 into one word."""
    return np.uint64(low) | (np.uint64(high) << U32)


@kernel
def order_hash(order: Record) -> Any:
    """Return the hash of an order without its extension."""
    words = view_as(order, ORDER_WORDS)
    return hash8(
        ORDER_TAG | ((words.terms & TERMS) << U8),
        order.order_id,
        words.parties,
        order.client_order_id,
        np.uint64(order.price),
        np.uint64(order.quantity),
        np.uint64(order.cum),
        order.priority,
    )


@inlined
def replace_hash(core: Record, record: Record, new: Any) -> None:
    """Replace a record's hash, in the record and in the sum."""
    core.digest += new - record.hash
    record.hash = new


@inlined
def drop_hash(core: Record, record: Record) -> None:
    """Subtract the hash of a record that is about to be removed."""
    core.digest -= record.hash
    record.hash = 0


@kernel
def extension_hash(state: Tables, order: Record) -> Any:
    """Return the hash of an order's extension."""
    # Slot 0 of the sessions is empty: an order without a session has session id 0.
    session_id = state.sessions[order.session].session_id
    return hash4(EXTENSION_TAG, order.order_id, np.uint64(order.shown), session_id)


@kernel
def order_details_hash(state: Tables, order: Record) -> Any:
    """Return the sum of the hashes of an order's long id and terms."""
    details = state.order_details[order.details]
    total = U0
    if has_text(details):
        total += hash10(
            LONG_ID_TAG,
            order.order_id,
            details.client_order_id_0,
            details.client_order_id_1,
            details.client_order_id_2,
            details.client_order_id_3,
            details.client_order_id_4,
            details.client_order_id_5,
            details.client_order_id_6,
            details.client_order_id_7,
        )
    if has_terms(details):
        total += hash9(
            TERMS_TAG,
            order.order_id,
            np.uint64(details.stop_price_ticks),
            np.uint64(details.display_lots),
            np.uint64(details.expiry_ns),
            np.uint64(details.trailing_offset_ticks),
            np.uint64(details.peg_offset_ticks),
            details.order_list_id,
            pack_pair(details.credential, details.peg_reference),
        )
    return total


@inlined
def refresh_order(state: Tables, order: Record) -> None:
    """Update the hash of an order."""
    core = state.core[0]
    if core.hashing != 0:
        new = order_hash(order)
        if order.shown != 0 or order.session != 0:
            new += extension_hash(state, order)
        if order.details != 0:
            new += order_details_hash(state, order)
        replace_hash(core, order, new)


@kernel
def balance_hash(balance: Record) -> Any:
    """Return the hash of a balance."""
    owner = pack_pair(balance.account_id, balance.asset_id)
    return hash4(BALANCE_TAG, owner, np.uint64(balance.available), np.uint64(balance.held))


@inlined
def is_empty(balance: Record) -> Any:
    """Whether there is nothing in a balance."""
    return (balance.available | balance.held) == 0


@kernel
def count_empty(core: Record, was_empty: Any, old: Any, balance: Record) -> None:
    """Update the sum of empty balances and the number of others after a balance became empty, or is so no more."""
    if was_empty:
        core.funded_balances += U1
        core.empty_sum -= old
    if is_empty(balance):
        core.funded_balances -= U1
        core.empty_sum += balance.hash


@inlined
def refresh_balance(core: Record, balance: Record, was_empty: Any) -> None:
    """Update the hash of a balance; `was_empty` is what is_empty returned before the change."""
    if core.hashing != 0:
        new = balance_hash(balance)
        old = balance.hash
        core.balance_sum += new - old
        replace_hash(core, balance, new)
        if was_empty or is_empty(balance):
            count_empty(core, was_empty, old, balance)


@inlined
def refresh_moved_balance(core: Record, balance: Record) -> None:
    """Update the hash of a balance after its money was held or released: it is not empty."""
    if core.hashing != 0:
        new = balance_hash(balance)
        core.balance_sum += new - balance.hash
        replace_hash(core, balance, new)


@kernel
def refresh_account(core: Record, account: Record) -> None:
    """Update the hash of an account and its limits."""
    if core.hashing != 0:
        new = hash2(ACCOUNT_TAG | (np.uint64(account.status) << U8), np.uint64(account.account_id))
        limits = account.max_open_notional | account.max_order_notional | account.max_order_quantity
        if limits != 0 or account.max_open_orders != 0:
            new += hash5(
                LIMITS_TAG,
                pack_pair(account.account_id, account.max_open_orders),
                np.uint64(account.max_open_notional),
                np.uint64(account.max_order_notional),
                np.uint64(account.max_order_quantity),
            )
        if account.firm != 0:
            new += hash2(FIRM_TAG, pack_pair(account.account_id, account.firm))
        replace_hash(core, account, new)


@kernel
def refresh_credential(core: Record, credential: Record) -> None:
    """Update the hash of a credential and its networks."""
    if core.hashing != 0:
        new = hash8(
            CREDENTIAL_TAG
            | (np.uint64(credential.scope) << U8)
            | (np.uint64(credential.revoked) << U16)
            | (np.uint64(credential.prefixes) << U32),
            pack_pair(credential.credential_id, credential.permissions),
            np.uint64(credential.subject),
            np.uint64(credential.expires_ns),
            credential.key_0,
            credential.key_1,
            credential.key_2,
            credential.key_3,
        )
        if credential.prefixes != 0:
            new += hash10(
                NETWORKS_TAG,
                np.uint64(credential.credential_id),
                credential.networks_0,
                credential.networks_1,
                credential.networks_2,
                credential.networks_3,
                credential.networks_4,
                credential.networks_5,
                credential.networks_6,
                credential.networks_7,
            )
        replace_hash(core, credential, new)


@kernel
def refresh_asset(core: Record, asset: Record) -> None:
    """Update the hash of an asset."""
    if core.hashing != 0:
        head = ASSET_TAG | (np.uint64(asset.decimals) << U8)
        supply = np.uint64(asset.supply)
        new = hash6(head, np.uint64(asset.asset_id), asset.symbol_0, asset.symbol_1, supply, np.uint64(asset.cap))
        replace_hash(core, asset, new)


@inlined
def has_rules(instrument: Record) -> Any:
    """Whether an instrument has any rule."""
    prices = instrument.min_price | instrument.min_quantity | instrument.min_notional | instrument.max_notional
    # A maker fee is there only beside a taker fee.
    if (prices | instrument.taker_fee | instrument.band_bp | instrument.collar_bp) != 0:
        return True
    return (instrument.collar_reference | instrument.rule_flags) != 0


@kernel
def refresh_instrument(core: Record, instrument: Record) -> None:
    """Update the hash of an instrument after a change of status or rules."""
    if core.hashing != 0:
        new = hash9(
            INSTRUMENT_TAG | (np.uint64(instrument.status) << U8),
            np.uint64(instrument.instrument_id),
            instrument.symbol_0,
            instrument.symbol_1,
            instrument.symbol_2,
            pack_pair(instrument.base_id, instrument.quote_id),
            pack_pair(instrument.lot_units, instrument.scale_units),
            np.uint64(instrument.max_price),
            np.uint64(instrument.max_quantity),
        )
        if has_rules(instrument):
            new += hash7(
                RULES_TAG
                | (np.uint64(instrument.band_bp) << U8)
                | (np.uint64(instrument.collar_bp) << U24)
                | (np.uint64(instrument.collar_reference) << U40)
                | (np.uint64(instrument.rule_flags) << U48),
                np.uint64(instrument.instrument_id),
                np.uint64(instrument.taker_fee) | (np.uint64(instrument.maker_fee) << U32),
                np.uint64(instrument.min_price),
                np.uint64(instrument.min_quantity),
                np.uint64(instrument.min_notional),
                np.uint64(instrument.max_notional),
            )
        instrument.static_hash = new
        refresh_last_price(core, instrument)


@inlined
def refresh_last_price(core: Record, instrument: Record) -> None:
    """Update the hash of an instrument after a change of its last price alone."""
    if core.hashing != 0:
        new = instrument.static_hash
        if instrument.last_price != 0:
            head = PRICE_TAG | (np.uint64(instrument.instrument_id) << U32)
            new += hash2(head, np.uint64(instrument.last_price))
        replace_hash(core, instrument, new)


@kernel
def refresh_session(core: Record, session: Record) -> None:
    """Update the hash of a session after any change but a new answer."""
    if core.hashing != 0:
        head = (
            SESSION_TAG
            | (np.uint64(session.flags) << U8)
            | (np.uint64(session.closed) << U16)
            | (np.uint64(session.run) << U24)
            | (np.uint64(session.account_id) << U32)
        )
        session.static_hash = hash4(head, session.session_id, np.uint64(session.last_active_ns), session.activity)
        if session.credential_id != 0:
            session.static_hash += hash2(OPENED_BY_TAG | (np.uint64(session.credential_id) << U32), session.session_id)
        replace_hash(core, session, session.static_hash + session.chain)


@kernel
def refresh_transfer(core: Record, transfer: Record) -> None:
    """Update the hash of a transfer."""
    if core.hashing != 0:
        head = TRANSFER_TAG | (np.uint64(transfer.kind) << U8)
        owner = pack_pair(transfer.account_id, transfer.asset_id)
        amount = np.uint64(transfer.amount)
        time = np.uint64(transfer.time_ns)
        replace_hash(core, transfer, hash6(head, transfer.transfer_id, owner, amount, time, transfer.sequence))


@kernel
def retention_hash(core: Record) -> Any:
    """Return the hash of what SET_RETENTION sets."""
    return hash3(RETENTION_TAG, pack_pair(core.session_silence_s, core.transfer_age_s), core.transfers)


@kernel
def capacity_hash(core: Record) -> Any:
    """Return the hash of what SET_CAPACITY sets; 0 as long as all numbers are the defaults."""
    first = pack_pair(core.max_accounts, core.max_orders)
    second = pack_pair(core.max_balances, core.max_sessions)
    third = pack_pair(core.max_answers, core.max_instruments)
    fourth = pack_pair(core.max_assets, core.max_credentials)
    if first == second == fourth == DEFAULT_PAIR and third == DEFAULT_ANSWERS_PAIR:
        return U0
    return hash5(CAPACITY_TAG, first, second, third, fourth)


@inlined
def counters_hash(core: Record) -> Any:
    """Return the hash of the counters, the time, the kill switch and the version of the rules."""
    head = COUNTERS_TAG | (np.uint64(core.killed) << U8) | (np.uint64(core.rules_version - FIRST_RULES) << U16)
    return hash5(head, core.command_sequence, core.event_sequence, core.match_sequence, np.uint64(core.time_ns))


@inlined
def update_state_hash(core: Record, ring: Any, event_words: Any, first: Any, count: Any) -> None:
    """Compute the state hash after a command: from the previous one, the content and the command's events."""
    if core.hashing != 0:
        events = hash_events(event_words, first * 16, count)
        content = core.digest + counters_hash(core)
        state_hash = hash3(core.state_hash, content, events)
        core.state_hash = state_hash
        ring[core.command_sequence & np.uint64(len(ring) - 1)] = state_hash
