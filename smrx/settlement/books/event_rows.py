"""Lay out events as kernels take them: every word signed, text as words, and a layout for each kind that has its own.

Numba makes a float of int64 with uint64, and nothing in the books needs the 64th bit. A kernel takes an event as ROW
and views it through the layout of its kind.
"""

from typing import Final

from smrx.wire.codes import EventKind
from smrx.wire.records import EVENT_LAYOUTS, signed_words

ROW: Final = signed_words(EVENT_LAYOUTS[EventKind.NEW])
TRADE: Final = signed_words(EVENT_LAYOUTS[EventKind.TRADE])
TRANSFER: Final = signed_words(EVENT_LAYOUTS[EventKind.DEPOSITED])
ASSET_ADDED: Final = signed_words(EVENT_LAYOUTS[EventKind.ASSET_ADDED])
INSTRUMENT_ADDED: Final = signed_words(EVENT_LAYOUTS[EventKind.INSTRUMENT_ADDED])
RULES_SET: Final = signed_words(EVENT_LAYOUTS[EventKind.RULES_SET])
