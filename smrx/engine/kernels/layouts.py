"""The layouts through which kernels view commands, details and events, and the bits that each kind of command may set.

A layout with text is taken as words (records.as_words). `*_UNUSED` has the bits that must be 0, in rows of one kind
after the other: of the 8 words of a command, and of the 16 words of its details. Bytes without a name are among them.
"""

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from smrx.engine.state import ORDER
from smrx.wire.codes import COMMAND_TRAITS, CommandKind, CommandTraits
from smrx.wire.records import (
    ASSET_COMMAND,
    ASSET_EVENT,
    CLIENT_ORDER_ID_EVENT,
    COMMAND_FIELDS,
    COMMAND_LAYOUTS,
    COMMAND_SIZE,
    CREDENTIAL_DETAILS,
    CREDENTIAL_EVENT,
    CREDENTIAL_NETWORKS_EVENT,
    DETAILS_FIELDS,
    DETAILS_LAYOUTS,
    DETAILS_SIZE,
    EVENT_SIZE,
    INSTRUMENT_DETAILS,
    INSTRUMENT_EVENT,
    ORDER_DETAILS,
    as_words,
)

Layout = np.dtype[Any]

ORDER_DETAILS_WORDS: Final = as_words(ORDER_DETAILS)
INSTRUMENT_DETAILS_WORDS: Final = as_words(INSTRUMENT_DETAILS)
ASSET_COMMAND_WORDS: Final = as_words(ASSET_COMMAND)
ASSET_EVENT_WORDS: Final = as_words(ASSET_EVENT)
INSTRUMENT_EVENT_WORDS: Final = as_words(INSTRUMENT_EVENT)
CLIENT_ORDER_ID_WORDS: Final = as_words(CLIENT_ORDER_ID_EVENT)
CREDENTIAL_DETAILS_WORDS: Final = as_words(CREDENTIAL_DETAILS)
CREDENTIAL_EVENT_WORDS: Final = as_words(CREDENTIAL_EVENT)
CREDENTIAL_NETWORKS_WORDS: Final = as_words(CREDENTIAL_NETWORKS_EVENT)


def _plain_words(size: int) -> Layout:
    """Return a record of nothing but words, `word_0` the first."""
    return np.dtype([(f"word_{at}", "<u8") for at in range(size // 8)])


COMMAND_WORDS: Final = _plain_words(COMMAND_SIZE)
DETAILS_WORDS: Final = _plain_words(DETAILS_SIZE)
EVENT_WORDS: Final = _plain_words(EVENT_SIZE)
assert ORDER.fields is not None
#: Two words of an order: account and instrument, as in word 3 of its command; side, type, time in force, self-trade
#: prevention and flags, as in word 0 of its command after the kind, and then whether it is live.
ORDER_WORDS: Final = np.dtype(
    {
        "names": ["parties", "terms"],
        "formats": ["<u8", "<u8"],
        "offsets": [ORDER.fields[first][1] for first in ("account_id", "side")],
        "itemsize": ORDER.itemsize,
    }
)

#: What the look-ahead found for a command (lookahead.py): numbers of cells and slots.
_AHEAD_FIELDS: Final = (
    "session_cell", "order_cell", "client_cell", "level_cell", "base_cell", "quote_cell", "session", "order", "level"
)  # fmt: skip
AHEAD: Final = np.dtype([(name, "<u4") for name in _AHEAD_FIELDS])
#: A power of two, and more than the commands that are looked at ahead.
AHEAD_RECORDS: Final = 8

#: Kinds without a sender.
_WITHOUT_SENDER: Final = (CommandKind.TICK, CommandKind.SET_VERSION)
#: One more than the largest kind.
KINDS: Final = max(CommandKind) + 1


def _sender(kind: CommandKind) -> tuple[str, ...]:
    """Return the fields of the sender that a kind has."""
    if kind in _WITHOUT_SENDER:
        return ("kind",)
    numbered = CommandTraits.NUMBERED in COMMAND_TRAITS[kind]
    return ("kind", "session_id", "request_id") if numbered else ("kind", "session_id")


def _unused_bits(size: int, layouts: Mapping[CommandKind, Layout], fields: dict[CommandKind, Any]) -> NDArray[Any]:
    """Return the words of the bits that must be 0, one row of `size` bytes for each kind; all of an unknown kind."""
    unused = np.full((KINDS, size), 0xFF, np.uint8)
    for kind, layout in layouts.items():
        for name in fields[kind]:
            assert layout.fields is not None
            form, offset = layout.fields[name][:2]
            unused[kind, offset : offset + form.itemsize] = 0
    return unused.view(np.uint64).reshape(-1)


COMMAND_UNUSED: Final = _unused_bits(
    COMMAND_SIZE,
    COMMAND_LAYOUTS,
    # A kind that may not have details is INVALID_DETAILS with them, not RESERVED_NOT_ZERO.
    {kind: (*_sender(kind), *names, "details") for kind, names in COMMAND_FIELDS.items()},
)
DETAILS_UNUSED: Final = _unused_bits(DETAILS_SIZE, DETAILS_LAYOUTS, dict(DETAILS_FIELDS))
