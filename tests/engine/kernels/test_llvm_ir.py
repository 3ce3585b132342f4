"""The trade path has no floating point and no allocation: checked in the LLVM code.

The module that is read contains apply and all that it calls, inlined or not.
"""

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numba import njit

from smrx.engine.kernels import xxh3
from tests.engine.kernels import llvm_text
from tests.engine.kernels.llvm_text import llvm_of

FLOAT = re.compile(r"\b(half|bfloat|float|double|x86_fp80|fp128)\b")
#: The allocators of Numba's runtime, Python and C. NRT_decref and NRT_adapt belong to the arguments, not to the body.
ALLOCATION = re.compile(
    r"\b(NRT_(?:Allocate|Reallocate|MemInfo_(?:new|alloc|varsize))\w*|malloc|calloc|realloc|PyObject_\w*Alloc\w*)\b"
)


def impurities(llvm: str) -> list[str]:
    """Return what a module has that the trade path must not have."""
    return sorted({match.group() for pattern in (FLOAT, ALLOCATION) for match in pattern.finditer(llvm)})


@pytest.fixture(scope="module")
def apply_llvm() -> str:
    """The LLVM module of apply."""
    return llvm_text.of_apply()


def test_apply_has_no_float_and_allocates_nothing(apply_llvm: str) -> None:
    assert impurities(apply_llvm) == []


def test_llvm_text_contains_the_engine(apply_llvm: str) -> None:
    assert len(apply_llvm) > 100_000
    # A constant of xxh3 and its 128-bit product.
    assert str(int(xxh3.PRIME64_1)) in apply_llvm or str(int(xxh3.PRIME64_1) - (1 << 64)) in apply_llvm
    assert "i128" in apply_llvm


def mixes_signs(count: Any) -> Any:
    """A variable that is uint64 on one path and int64 on the other: Numba makes it a float without a warning."""
    total = np.uint64(count)
    if count > 3:
        total = np.int64(count)
    return total


def divides(count: Any) -> Any:
    return count / 3


def makes_an_array(count: Any) -> Any:
    return np.zeros(count, np.int64)[0]


def makes_a_list(count: Any) -> Any:
    return len([at for at in range(count)])  # noqa: C416  # list() of a range would be another allocation


@pytest.mark.parametrize("bug", [mixes_signs, divides, makes_an_array, makes_a_list])
def test_float_or_allocation_is_found(bug: Callable[[int], Any]) -> None:
    function = njit(bug)
    function(3)
    assert impurities(llvm_of(function)) != []


def test_integer_code_has_no_finding() -> None:
    @njit
    def fine(count: Any) -> Any:
        return (count * 3) >> 1

    fine(3)
    assert impurities(llvm_of(fine)) == []
