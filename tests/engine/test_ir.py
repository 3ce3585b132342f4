"""No floating point and no allocation on the trade path: read from the code that LLVM was given, not claimed.

The module that is read holds apply and all that it calls, whether inlined or not.
"""

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numba import njit

from smrx.engine import Engine
from smrx.engine.kernels import compiled as entry
from smrx.engine.kernels import xxh3
from smrx.wire.records import COMMAND

FLOAT = re.compile(r"\b(half|bfloat|float|double|x86_fp80|fp128)\b")
#: What Numba's runtime, Python and C allocate with. NRT_decref and NRT_adapt belong to the arguments, not to the body.
ALLOCATION = re.compile(
    r"\b(NRT_(?:Allocate|Reallocate|MemInfo_(?:new|alloc|varsize))\w*|malloc|calloc|realloc|PyObject_\w*Alloc\w*)\b"
)


def impurities(llvm: str) -> list[str]:
    """What a module has that the trade path may not have."""
    return sorted({match.group() for pattern in (FLOAT, ALLOCATION) for match in pattern.finditer(llvm)})


def llvm_of(function: Any) -> str:
    """The whole module of a compiled function's only signature."""
    (text,) = function.inspect_llvm().values()
    return str(text)


@pytest.fixture(scope="module")
def apply_llvm() -> str:
    Engine().apply(np.zeros(1, COMMAND), 1)
    # What comes from the cache has no text any more, so it is compiled once again.
    fresh = njit(error_model="numpy")(entry.apply_at.py_func)
    fresh.compile(entry.apply_at.nopython_signatures[0].args)
    return llvm_of(fresh)


def test_apply_has_no_float_and_allocates_nothing(apply_llvm: str) -> None:
    assert impurities(apply_llvm) == []


def test_the_text_that_is_read_has_the_engine_in_it(apply_llvm: str) -> None:
    assert len(apply_llvm) > 100_000
    # The first accumulators of xxh3, and the 128 bit product: what is hashed and matched is all there.
    assert str(int(xxh3.PRIME64_1)) in apply_llvm or str(int(xxh3.PRIME64_1) - (1 << 64)) in apply_llvm
    assert "i128" in apply_llvm


def mixes_signs(count: Any) -> Any:
    """A variable that is uint64 here and int64 there: Numba makes it a float, without a word."""
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
def test_a_float_or_an_allocation_is_found(bug: Callable[[int], Any]) -> None:
    compiled = njit(bug)
    compiled(3)
    assert impurities(llvm_of(compiled)) != []


def test_plain_integers_are_no_finding() -> None:
    @njit
    def fine(count: Any) -> Any:
        return (count * 3) >> 1

    fine(3)
    assert impurities(llvm_of(fine)) == []
