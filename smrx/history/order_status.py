"""Define the statuses of an order and which event leads from one to another, in one table, which is compiled."""

from collections.abc import Mapping
from enum import IntEnum
from typing import Final

import numpy as np
from numpy.typing import NDArray

from smrx.wire.codes import EventKind


class OrderStatus(IntEnum):
    """The status of an order. UNKNOWN is that of an order before its first event."""

    UNKNOWN = 0
    NEW = 1
    PARTIALLY_FILLED = 2
    FILLED = 3
    CANCELLED = 4
    REJECTED = 5
    EXPIRED = 6

    @property
    def is_open(self) -> bool:
        """Whether the order can still trade."""
        return self in (OrderStatus.NEW, OrderStatus.PARTIALLY_FILLED)

    @property
    def label(self) -> str:
        """The name for people and programs, such as PartiallyFilled."""
        return "".join(word.capitalize() for word in self.name.split("_"))


#: The names by which filters choose statuses.
LABELS: Final = {status.label: status for status in OrderStatus if status is not OrderStatus.UNKNOWN}

#: TRANSITIONS[status][kind] is the status after an event of that kind. What is not listed is forbidden.
TRANSITIONS: Final[Mapping[OrderStatus, Mapping[EventKind, OrderStatus]]] = {
    OrderStatus.UNKNOWN: {
        EventKind.NEW: OrderStatus.NEW,
        EventKind.REJECTED: OrderStatus.REJECTED,
        # A FOK order that cannot be filled has no NEW.
        EventKind.EXPIRED: OrderStatus.EXPIRED,
    },
    OrderStatus.NEW: {
        EventKind.PARTIALLY_FILLED: OrderStatus.PARTIALLY_FILLED,
        EventKind.FILLED: OrderStatus.FILLED,
        EventKind.CANCELLED: OrderStatus.CANCELLED,
        EventKind.EXPIRED: OrderStatus.EXPIRED,
        EventKind.REPLACED: OrderStatus.NEW,
        EventKind.TRIGGERED: OrderStatus.NEW,
    },
    OrderStatus.PARTIALLY_FILLED: {
        EventKind.PARTIALLY_FILLED: OrderStatus.PARTIALLY_FILLED,
        EventKind.FILLED: OrderStatus.FILLED,
        EventKind.CANCELLED: OrderStatus.CANCELLED,
        EventKind.EXPIRED: OrderStatus.EXPIRED,
        EventKind.REPLACED: OrderStatus.PARTIALLY_FILLED,
    },
    # These are ends.
    OrderStatus.FILLED: {},
    OrderStatus.CANCELLED: {},
    OrderStatus.REJECTED: {},
    OrderStatus.EXPIRED: {},
}


def transition_codes() -> NDArray[np.uint8]:
    """Return TRANSITIONS as an array of statuses by status and kind, 0 where a transition is forbidden."""
    codes = np.zeros((len(OrderStatus), 256), np.uint8)
    for status, kinds in TRANSITIONS.items():
        for kind, after in kinds.items():
            codes[status, kind] = after
    return codes
