"""Convert client order ids: text, its 64-bit form, and the fields of commands, events and orders that carry it.

A client order id is 1 to 64 printable ASCII characters (space to ~). An id of up to 8 characters is its own 64-bit
form: the characters, the first in the low byte, padded with NULs. Of a longer id the 64-bit form is the xxh3 of its 64
bytes (padded with NULs) with the highest bit set, which no character has; the text itself stands in the details of
commands and orders and in CLIENT_ORDER_ID events. Two different ids can have the same form only if both are longer; an
account cannot have both open at once.
"""

from typing import Final

import numpy as np
import xxhash
from numpy.typing import NDArray

from smrx.wire.records import CLIENT_ORDER_ID_SIZE, LONG_ID, SHORT_ID_SIZE

_FIRST: Final = " "
_LAST: Final = "~"


def pack_client_order_id(text: str) -> tuple[int, bytes]:
    """Return the command's field and the text for its details, b"" if the id is short.

    Raises ValueError for text that is not a client order id.
    """
    if not 1 <= len(text) <= CLIENT_ORDER_ID_SIZE or min(text) < _FIRST or max(text) > _LAST:
        found = f"{text!r} ({len(text)} characters)" if len(text) > CLIENT_ORDER_ID_SIZE else repr(text)
        raise ValueError(
            f"client order id: expected 1 to {CLIENT_ORDER_ID_SIZE} printable ASCII characters, found {found}"
        )
    raw = text.encode("ascii")
    if len(raw) > SHORT_ID_SIZE:
        return 0, raw
    return int.from_bytes(raw, "little"), b""


def pack_numbers(numbers: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return the command's field of each number as an id of eight decimal digits: of 42 that of "00000042".

    Only the last eight digits of a number count. For large arrays: it takes a few operations for all of them.
    """
    # Two halves of four digits, four quarters of two, eight digits: each division by a multiplication and a shift.
    below = numbers % np.uint64(10**8)
    high = below // np.uint64(10**4)
    halves = high + ((below - high * np.uint64(10**4)) << np.uint64(32))
    hundreds = ((halves * np.uint64(10486)) >> np.uint64(20)) & np.uint64(0x7F_0000_007F)
    quarters = hundreds + ((halves - hundreds * np.uint64(100)) << np.uint64(16))
    tens = ((quarters * np.uint64(103)) >> np.uint64(10)) & np.uint64(0x000F_000F_000F_000F)
    digits: NDArray[np.uint64] = tens + ((quarters - tens * np.uint64(10)) << np.uint64(8))
    return digits | np.uint64(0x3030_3030_3030_3030)


def id_form(text: bytes) -> int:
    """Return the 64-bit form of an id."""
    if len(text) <= SHORT_ID_SIZE:
        return int.from_bytes(text, "little")
    return xxhash.xxh3_64_intdigest(text.ljust(CLIENT_ORDER_ID_SIZE, b"\0")) | LONG_ID


def short_id_text(form: int) -> str | None:
    """Return the text of an id by its 64-bit form; "" for none, None for a longer id, whose form is a hash."""
    if form & LONG_ID:
        return None
    return int(form).to_bytes(8, "little").rstrip(b"\0").decode("ascii", "replace")
