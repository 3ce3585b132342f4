"""Client order ids: text, the fields that carry it, and its 64-bit form."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from smrx.wire.client_order_ids import id_form, pack_client_order_id, pack_numbers, short_id_text
from smrx.wire.records import LONG_ID

texts = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), min_size=1, max_size=64)


@given(texts)
def test_text_is_in_one_of_two_fields(text: str) -> None:
    word, long_text = pack_client_order_id(text)
    form = id_form(text.encode())
    if len(text) <= 8:
        assert (short_id_text(word), long_text, form) == (text, b"", word)
        assert not form & LONG_ID
    else:
        assert (word, long_text.decode()) == (0, text)
        assert form & LONG_ID
        assert short_id_text(form) is None


@pytest.mark.parametrize("text", ["", "a\n", "\x7f", "caf\u00e9", "\u0661", "x" * 65, "a\0"])
def test_other_text_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected 1 to 64 printable ASCII characters"):
        pack_client_order_id(text)


@given(st.lists(st.integers(0, (1 << 64) - 1), min_size=1, max_size=20))
def test_numbers_are_packed_as_eight_digits(numbers: list[int]) -> None:
    packed = pack_numbers(np.array(numbers, np.uint64))
    assert [short_id_text(int(word)) for word in packed] == [f"{number % 10**8:08d}" for number in numbers]
