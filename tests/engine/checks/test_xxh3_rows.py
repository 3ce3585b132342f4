"""The xxh3 of many rows at once, compared with the xxhash package and with the kernels' multiplication."""

from typing import Any

import numpy as np
import pytest
import xxhash

from smrx.engine.checks import xxh3_rows
from smrx.engine.kernels.jit import _multiply_fold_interpreted

#: Enough rows that they are hashed together.
ROWS = 200


def disagreements(random: np.random.Generator) -> list[int]:
    """Return the numbers of words at which a row's hash differs from xxh3_64."""
    wrong = []
    for length in range(2, 17):
        rows = random.integers(0, 1 << 64, (ROWS, length), np.uint64)
        rows[0], rows[1] = 0, (1 << 64) - 1
        expected = [xxhash.xxh3_64_intdigest(row.tobytes()) for row in rows]
        if xxh3_rows.hash_rows(rows).tolist() != expected:
            wrong.append(length)
    return wrong


def test_row_hashes_equal_the_package() -> None:
    assert disagreements(np.random.default_rng(1)) == []


@pytest.mark.parametrize("broken", ["multiply_fold_rows", "_avalanche"])
def test_wrong_row_hash_is_noticed(broken: str, monkeypatch: pytest.MonkeyPatch) -> None:
    correct = getattr(xxh3_rows, broken)

    def off_by_one(*words: Any) -> Any:
        return correct(*words) ^ np.uint64(1)

    monkeypatch.setattr(xxh3_rows, broken, off_by_one)
    assert disagreements(np.random.default_rng(1)) == list(range(2, 17))


def test_few_rows_hash_like_many() -> None:
    rows = np.random.default_rng(2).integers(0, 1 << 64, (ROWS, 8), np.uint64)
    assert xxh3_rows.hash_rows(rows[:5]).tolist() == xxh3_rows.hash_rows(rows)[:5].tolist()


@pytest.mark.parametrize("length", [1, 17])
def test_unsupported_row_length_raises(length: int) -> None:
    with pytest.raises(ValueError, match=f"2 to 16 words, found {length}"):
        xxh3_rows.hash_rows(np.zeros((ROWS, length), np.uint64))


def test_multiply_fold_is_exact() -> None:
    left, right = np.random.default_rng(3).integers(0, 1 << 64, (2, ROWS), np.uint64)
    left[0], right[0] = (1 << 64) - 1, (1 << 64) - 1
    expected = [int(_multiply_fold_interpreted(*pair)) for pair in zip(left, right, strict=True)]
    assert xxh3_rows.multiply_fold_rows(left, right).tolist() == expected
