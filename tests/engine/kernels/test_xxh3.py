"""The kernels' xxh3 compared with the xxhash package, for every number of words of a record or of some events."""

from typing import Any

import numpy as np
import pytest
import xxhash
from numba import njit

from smrx.engine.kernels import xxh3
from smrx.engine.kernels.jit import _multiply_fold_interpreted, fingerprint, multiply_fold


@njit
def hashed(words: Any) -> Any:
    """Return the hash of the words by the function for their number."""
    count = len(words)
    if count == 2:
        return xxh3.hash2(words[0], words[1])
    if count == 3:
        return xxh3.hash3(words[0], words[1], words[2])
    if count == 4:
        return xxh3.hash4(words[0], words[1], words[2], words[3])
    if count == 5:
        return xxh3.hash5(words[0], words[1], words[2], words[3], words[4])
    if count == 6:
        return xxh3.hash6(words[0], words[1], words[2], words[3], words[4], words[5])
    if count == 7:
        return xxh3.hash7(words[0], words[1], words[2], words[3], words[4], words[5], words[6])
    if count == 8:
        return xxh3.hash8(words[0], words[1], words[2], words[3], words[4], words[5], words[6], words[7])
    if count == 9:
        return xxh3.hash9(words[0], words[1], words[2], words[3], words[4], words[5], words[6], words[7], words[8])
    if count == 10:
        return xxh3.hash10(
            words[0], words[1], words[2], words[3], words[4], words[5], words[6], words[7], words[8], words[9]
        )
    if count % 16 == 0:
        return xxh3.hash_events(words, 0, count // 16)
    return xxh3.hash_long(words, 0, count)


@njit
def multiply_folded(left: Any, right: Any) -> Any:
    return multiply_fold(left, right)


#: Records; one event; some events; lengths around the end of a block of 128 words; other lengths of the long path.
LENGTHS = (
    2,
    3,
    4,
    5,
    6,
    7,
    8,
    9,
    10,
    16,
    31,
    32,
    48,
    64,
    127,
    128,
    129,
    130,
    136,
    137,
    144,
    256,
    257,
    384,
    1024,
    1600,
    16_000,
)


def disagreements(function: Any, random: np.random.Generator) -> list[int]:
    """Return the lengths at which a function differs from xxh3_64."""
    wrong = []
    for length in LENGTHS:
        for words in (
            np.zeros(length, np.uint64),
            np.full(length, (1 << 64) - 1, np.uint64),
            *(random.integers(0, 1 << 64, length, np.uint64) for _ in range(5)),
        ):
            if int(function(words)) != xxhash.xxh3_64_intdigest(words.tobytes()):
                wrong.append(length)
                break
    return wrong


def test_kernel_hash_equals_the_package() -> None:
    assert disagreements(hashed, np.random.default_rng(1)) == []


def test_random_lengths_equal_the_package() -> None:
    random = np.random.default_rng(2)
    for length in random.integers(31, 3_000, 200).tolist():
        words = random.integers(0, 1 << 64, length, np.uint64)
        assert int(hashed(words)) == xxhash.xxh3_64_intdigest(words.tobytes()), length


def test_hash_of_an_array_slice() -> None:
    @njit
    def part(words: Any, at: int, events: int) -> Any:
        return xxh3.hash_events(words, at, events)

    words = np.random.default_rng(3).integers(0, 1 << 64, 160, np.uint64)
    for at, events in ((16, 1), (32, 2), (48, 7)):
        assert int(part(words, at, events)) == xxhash.xxh3_64_intdigest(words[at : at + 16 * events].tobytes())


def test_wrong_hash_is_noticed() -> None:
    def one_bit_off(words: Any) -> int:
        return int(hashed(words)) ^ (1 if len(words) == 48 else 0)

    assert disagreements(one_bit_off, np.random.default_rng(1)) == [48]


@pytest.mark.parametrize(
    ("left", "right"), [(0, 5), (1, (1 << 64) - 1), ((1 << 64) - 1, (1 << 64) - 1), (0x9E3779B185EBCA87, 1 << 63)]
)
def test_multiply_fold_combines_both_halves(left: int, right: int) -> None:
    product = left * right
    expected = (product & ((1 << 64) - 1)) ^ (product >> 64)
    assert int(multiply_folded(np.uint64(left), np.uint64(right))) == expected
    assert int(_multiply_fold_interpreted(np.uint64(left), np.uint64(right))) == expected


def test_fingerprint_depends_on_the_sources() -> None:
    both = fingerprint("smrx.engine.kernels.book", "smrx.engine.kernels.hash_index")
    assert both == fingerprint("smrx.engine.kernels.book", "smrx.engine.kernels.hash_index")
    assert (
        len(
            {
                both,
                fingerprint("smrx.engine.kernels.book"),
                fingerprint("smrx.engine.kernels.hash_index"),
                fingerprint(),
            }
        )
        == 4
    )
