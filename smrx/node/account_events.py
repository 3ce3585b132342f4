"""Pick the events that concern some accounts, and remove from them what belongs to others.

An event concerns its account, a TRADE both of its accounts. A rejection concerns no account if it was decided before
the account was looked at: its sender may be anyone, and has only named the account. Removed are: every session and
request id; of a TRADE the order, account and fee of the side that is not among the accounts; the credential, where the
command of another account may have caused the event. The result follows from the events and the accounts alone, so all
nodes send the same bytes.
No I/O. Called by the publisher.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from smrx.node.account_sets import AccountSet
from smrx.wire.codes import EventKind, Reason
from smrx.wire.record_words import record_words
from smrx.wire.records import EVENT, TRADE_EVENT

#: Kinds that the command of another account may cause.
_CAUSED_BY_OTHERS: Final = np.array(
    [EventKind.PARTIALLY_FILLED, EventKind.FILLED, EventKind.TRIGGERED, EventKind.EXPIRED, EventKind.CANCELLED]
)
#: Unless it is this reason, a cancellation may have been caused by the command of another account.
_REQUESTED: Final = np.array([Reason.REQUESTED, Reason.MASS_CANCEL])

#: The reasons of rejections that are decided before the account is looked at, by their precedence.
_BEFORE_ACCOUNT: Final = np.array(list(Reason)[: list(Reason).index(Reason.UNKNOWN_ACCOUNT) + 1])
#: The events that may follow that of a rejected command, and their greatest number.
_FOLLOWING: Final = np.array([EventKind.CLIENT_ORDER_ID, EventKind.ORDER_TERMS])
MOST_FOLLOWING: Final = 2

_LOW: Final = np.uint64(0xFFFFFFFF)
_HIGH: Final = np.uint64(0xFFFFFFFF << 32)
#: The bytes of word 3 that a TRADE shows to its maker: kind, side and reason, not the terms of the taker's order.
_KIND_SIDE_REASON: Final = np.uint64(0xFFFF00000000FFFF)


def _word(name: str) -> int:
    """Return the word of TRADE_EVENT in which a field stands."""
    assert TRADE_EVENT.fields is not None
    return int(TRADE_EVENT.fields[name][1]) // 8


_SESSION, _REQUEST, _TERMS = _word("session_id"), _word("request_id"), _word("kind")
_TAKER_ORDER, _TAKER_ACCOUNT, _TAKER_FEE = _word("order_id"), _word("account"), _word("taker_fee")
#: The credential of a TRADE is the lower half of this word, in the place of a client order id; 0 with rules 1.
_TRADE_CREDENTIAL: Final = 8
_MAKER_ORDER, _MAKER_ACCOUNT, _MAKER_FEE = _word("counter_order_id"), _word("counter_account"), _word("maker_fee")


def account_events(events: NDArray[np.void], accounts: AccountSet, first: int = 0) -> NDArray[np.void]:
    """Return those of `events` from `first` on that concern `accounts`, without what belongs to others; a copy.

    Before `first` there may be events that tell what those of the same command mean: MOST_FOLLOWING suffice.
    """
    is_own = accounts.holds(events["account"])
    is_makers = np.zeros(len(events), np.bool_)
    kind = events["kind"]
    is_trade = kind == EventKind.TRADE
    if is_trade.any():
        is_makers[is_trade] = accounts.holds(events.view(TRADE_EVENT)["counter_account"][is_trade])
    is_shown = is_own | is_makers
    by_anyone = is_shown & (kind == EventKind.REJECTED) & np.isin(events["reason"], _BEFORE_ACCOUNT)
    if by_anyone.any():
        following = np.isin(kind, _FOLLOWING) & np.isin(
            events["command_sequence"], events["command_sequence"][by_anyone]
        )
        is_shown &= ~(by_anyone | following)
    if first:
        is_shown &= events["sequence"] >= np.uint64(first)
    found = np.flatnonzero(is_shown)
    words = record_words(events)[found]
    _remove_others(words, is_own[found], is_makers[found])
    return words.view(EVENT).reshape(-1)


def accounts_of(events: NDArray[np.void]) -> NDArray[np.uint32]:
    """Return the accounts that any of the events concerns, in ascending order."""
    is_trade = events["kind"] == EventKind.TRADE
    if not is_trade.any():
        return np.unique(events["account"])
    return np.unique(np.concatenate([events["account"], events.view(TRADE_EVENT)["counter_account"][is_trade]]))


def _remove_others(words: NDArray[np.uint64], is_own: NDArray[np.bool_], is_makers: NDArray[np.bool_]) -> None:
    """Set to 0 what events, as words, say of others.

    is_own, is_makers: whether the account of an event, and the maker of a TRADE, is among the accounts.
    """
    words[:, _SESSION] = 0
    words[:, _REQUEST] = 0
    events = words.view(EVENT).reshape(-1)
    kind = events["kind"]
    by_others = np.isin(kind, _CAUSED_BY_OTHERS)
    by_others &= ~((kind == EventKind.CANCELLED) & np.isin(events["reason"], _REQUESTED))
    # The credential stands where a TRADE has the maker's account.
    words[by_others, _MAKER_ACCOUNT] &= _HIGH
    is_trade = kind == EventKind.TRADE
    words[is_trade & ~(is_own & is_makers), _TRADE_CREDENTIAL] &= _HIGH
    only_taker = np.flatnonzero(is_trade & ~is_makers)
    words[only_taker, _MAKER_ORDER] = 0
    words[only_taker, _MAKER_FEE] = 0
    words[only_taker, _MAKER_ACCOUNT] = 0
    only_maker = np.flatnonzero(is_trade & ~is_own)
    words[only_maker, _TERMS] &= _KIND_SIDE_REASON
    words[only_maker, _TAKER_ORDER] = 0
    words[only_maker, _TAKER_FEE] = 0
    # The instrument stands in the lower half of the same word.
    words[only_maker, _TAKER_ACCOUNT] &= _LOW
