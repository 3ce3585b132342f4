"""Say for every kind of event how the books post it. A kind that is not listed is refused."""

from collections.abc import Mapping
from enum import IntEnum
from typing import Final

import numpy as np
from numpy.typing import NDArray

from smrx.wire.codes import EventKind


class Posting(IntEnum):
    """What the books do with an event, beside checking its place in the stream."""

    REFUSED = 0  #: not listed in POSTINGS
    # Up to LAST_WITH_PLACE: they may only come where one of them is expected, and nothing else may come there.
    FILL = 1
    FOLLOWING = 2  #: it belongs to the event before it
    NOTHING = 3  #: it moves no money and changes no order
    NEW = 4
    TRADE = 5
    END = 6
    REPLACED = 7
    TRIGGERED = 8
    REJECTED = 9
    TRANSFER = 10
    ACCOUNT_OPENED = 11
    ASSET_ADDED = 12
    INSTRUMENT_ADDED = 13
    RULES_SET = 14
    CREDENTIAL = 15  #: its networks may follow


LAST_WITH_PLACE: Final = Posting.FOLLOWING

POSTINGS: Final[Mapping[EventKind, Posting]] = {
    EventKind.NEW: Posting.NEW,
    EventKind.PARTIALLY_FILLED: Posting.FILL,
    EventKind.FILLED: Posting.FILL,
    EventKind.CANCELLED: Posting.END,
    EventKind.REPLACED: Posting.REPLACED,
    EventKind.REJECTED: Posting.REJECTED,
    EventKind.EXPIRED: Posting.END,
    EventKind.TRADE: Posting.TRADE,
    EventKind.DEPOSITED: Posting.TRANSFER,
    EventKind.WITHDRAWN: Posting.TRANSFER,
    EventKind.ACCOUNT_OPENED: Posting.ACCOUNT_OPENED,
    EventKind.ACCOUNT_SUSPENDED: Posting.NOTHING,
    EventKind.ACCOUNT_RESUMED: Posting.NOTHING,
    EventKind.SESSION_OPENED: Posting.NOTHING,
    EventKind.SESSION_CLOSED: Posting.NOTHING,
    EventKind.ASSET_ADDED: Posting.ASSET_ADDED,
    EventKind.INSTRUMENT_ADDED: Posting.INSTRUMENT_ADDED,
    EventKind.MASS_CANCELLED: Posting.NOTHING,
    EventKind.STATUS_SET: Posting.NOTHING,
    EventKind.LIMITS_SET: Posting.NOTHING,
    EventKind.KILLED: Posting.NOTHING,
    EventKind.REVIVED: Posting.NOTHING,
    EventKind.TICKED: Posting.NOTHING,
    EventKind.RULES_SET: Posting.RULES_SET,
    EventKind.TRIGGERED: Posting.TRIGGERED,
    EventKind.SESSION_DISCONNECTED: Posting.NOTHING,
    EventKind.VERSION_SET: Posting.NOTHING,
    EventKind.CLIENT_ORDER_ID: Posting.FOLLOWING,
    EventKind.ORDER_TERMS: Posting.FOLLOWING,
    EventKind.SESSION_EXPIRED: Posting.NOTHING,
    EventKind.RETENTION_SET: Posting.NOTHING,
    EventKind.CREDENTIAL_ADDED: Posting.CREDENTIAL,
    EventKind.CREDENTIAL_SET: Posting.CREDENTIAL,
    EventKind.CREDENTIAL_REVOKED: Posting.NOTHING,
    EventKind.CREDENTIAL_NETWORKS: Posting.FOLLOWING,
    EventKind.CAPACITY_SET: Posting.NOTHING,
}


def posting_codes(postings: Mapping[EventKind, Posting] = POSTINGS) -> NDArray[np.uint8]:
    """Return the Posting of every value that the kind of an event can have, as kernels take it."""
    codes = np.zeros(256, np.uint8)
    for kind, posting in postings.items():
        codes[kind] = posting
    return codes
