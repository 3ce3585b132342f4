"""Compile kernels, and provide what Numba lacks: a product of 128 bits, a view of a record, a prefetch.

Owns the compiler options: every kernel of the engine is made by `kernel`, `inlined`, `merged` or `entry_point`. With
NUMBA_DISABLE_JIT=1 the same functions run as plain Python, slowly, with the same results.
"""

import importlib
from collections.abc import Callable
from typing import Any, Final, TypeVar, cast

import numpy as np
import xxhash
from llvmlite import ir
from numba import config, njit, types
from numba.core import cgutils, errors
from numba.core import runtime as numba_runtime
from numba.extending import intrinsic

#: An array of records or words, and one record of such an array; Numba infers the exact types.
Array = Any
Record = Any
#: The state as kernels see it (numba_tables.py): the tables of state.State as attributes.
Tables = Any

Kernel = TypeVar("Kernel", bound=Callable[..., Any])

# Numba is typed in parts, and differently from version to version: as Any it is the same in all.
_settings: Any = config
_compile: Any = njit
_code: Any = cgutils
_runtime: Any = numba_runtime

INTERPRETED: Final = bool(_settings.DISABLE_JIT)

U0: Final = np.uint64(0)
U1: Final = np.uint64(1)
U32: Final = np.uint64(32)
LOW32: Final = np.uint64(0xFFFF_FFFF)
NIL: Final = np.uint32(0)


def kernel(function: Kernel) -> Kernel:
    """Compile a function that only other kernels call. Division follows NumPy's rules, so it never raises."""
    # By default Numba inlines a function by force if its first caller is inlined by force.
    options = {"error_model": "numpy", "no_cpython_wrapper": True, "no_cfunc_wrapper": True, "forceinline": False}
    return cast(Kernel, _compile(**options)(function))


def inlined(function: Kernel) -> Kernel:
    """Compile a small function into the body of each caller."""
    options = {"error_model": "numpy", "no_cpython_wrapper": True, "no_cfunc_wrapper": True, "forceinline": True}
    return cast(Kernel, _compile(**options)(function))


def merged(function: Kernel) -> Kernel:
    """Insert a function with one caller into that caller before anything is compiled.

    For the few functions at the top of the call tree: Numba optimises everything a function calls once for each level
    above it.
    """
    return cast(Kernel, _compile(error_model="numpy", inline="always")(function))


def entry_point(function: Kernel) -> Kernel:
    """Compile a function that Python calls, and keep the machine code on disk for the next process."""
    options = {"error_model": "numpy", "no_cfunc_wrapper": True}
    try:
        compiled = _compile(cache=True, **options)(function)
    except RuntimeError:
        # Numba found no directory that it may write to. The engine works, but compiles at each start.
        return cast(Kernel, _compile(**options)(function))
    if not INTERPRETED:
        _load_without_registries(compiled._cache)
    return cast(Kernel, compiled)


def _load_without_registries(cache: Any) -> None:
    """Look for machine code on disk before the registries of the compiler are filled: that takes twice as long.

    Numba has no public function for this. If there is no machine code, the compiler fills its registries itself.
    """

    def load_overload(signature: Any, context: Any) -> Any:
        _runtime.rtsys.initialize(context)
        with cache._guard_against_spurious_io_errors():
            return cache._load_overload(signature, context)

    cache.load_overload = load_overload


def fingerprint(*modules: str) -> int:
    """Return the xxh3 of the source of engine modules.

    Numba checks only whether the file of the entry point changed, not the files of what it calls. An entry point that
    closes over this number is compiled again when any of them changes.
    """
    source_hash = xxhash.xxh3_64()
    for name in modules:
        module = importlib.import_module(name)
        source = getattr(module.__loader__, "get_source", lambda _: None)(name)
        source_hash.update((source or "").encode())
    return source_hash.intdigest()


def _multiply_fold(_: Any, left: Any, right: Any) -> Any:
    """The low word of a 128-bit product, xor its high word; an intrinsic."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        wide = ir.IntType(128)
        product = builder.mul(builder.zext(arguments[0], wide), builder.zext(arguments[1], wide))
        high = builder.trunc(builder.lshr(product, ir.Constant(wide, 64)), ir.IntType(64))
        return builder.xor(builder.trunc(product, ir.IntType(64)), high)

    return types.uint64(types.uint64, types.uint64), generate


def _multiply_fold_interpreted(left: Any, right: Any) -> Any:
    """The same in Python."""
    product = int(left) * int(right)
    return np.uint64((product & 0xFFFF_FFFF_FFFF_FFFF) ^ (product >> 64))


def _view_as(_: Any, record: Any, layout: Any) -> Any:
    """The same record under the field names of another layout of its size, a constant; an intrinsic."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return builder.bitcast(values[0], context.get_value_type(signature.return_type))

    if not isinstance(record, types.Record) or not isinstance(layout, types.DType) or layout.dtype.size != record.size:
        raise errors.TypingError(f"view_as: expected a layout of the size of {record}, found {layout}")
    return layout.dtype(record, layout), generate


def _view_as_interpreted(record: Any, layout: Any) -> Any:
    """The same in Python, of a record of an interpreted table (numba_tables.py)."""
    return record.viewed_as(layout)


def begin_load(builder: Any, address: Any) -> None:
    """Generate code that begins to load the cache line at an address."""
    byte, word = ir.IntType(8).as_pointer(), ir.IntType(32)
    kind = ir.FunctionType(ir.VoidType(), [byte, word, word, word])
    function = _code.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0i8")
    # For reading, into all caches, as data.
    builder.call(function, [builder.bitcast(address, byte), word(0), word(3), word(1)])


def _prefetch(_: Any, record: Any, line: Any) -> Any:
    """Begin to load a cache line of a record, the first with number 0; an intrinsic."""

    def generate(context: Any, builder: Any, _signature: Any, values: Any) -> Any:
        start = builder.bitcast(values[0], ir.IntType(8).as_pointer())
        begin_load(builder, builder.gep(start, [builder.shl(values[1], ir.IntType(64)(6))]))
        return context.get_dummy_value()

    return types.void(record, types.int64), generate


def _prefetch_interpreted(_record: Any, _line: Any) -> None:
    """Nothing: only the time differs."""


def _opaque(_: Any, value: Any) -> Any:
    """The same number; LLVM does not combine what it is computed from with anything else; an intrinsic."""

    def generate(_context: Any, builder: Any, _signature: Any, values: Any) -> Any:
        kind = values[0].type
        return builder.asm(ir.FunctionType(kind, [kind]), "", "=r,0", [values[0]], False)

    return value(value), generate


def _opaque_interpreted(value: Any) -> Any:
    """The same in Python."""
    return value


def _either(_: Any, condition: Any, first: Any, second: Any) -> Any:
    """The first of two numbers of one type if a condition holds, else the second, without a branch; an intrinsic."""

    def generate(_context: Any, builder: Any, _signature: Any, values: Any) -> Any:
        return builder.select(builder.icmp_unsigned("!=", values[0], values[0].type(0)), values[1], values[2])

    if first != second:
        raise errors.TypingError(f"either: expected two numbers of one type, found {first} and {second}")
    return first(condition, first, second), generate


def _either_interpreted(condition: Any, first: Any, second: Any) -> Any:
    """The same in Python."""
    return first if condition else second


either: Any = _either_interpreted if INTERPRETED else intrinsic(_either)
opaque: Any = _opaque_interpreted if INTERPRETED else intrinsic(_opaque)
prefetch: Any = _prefetch_interpreted if INTERPRETED else intrinsic(_prefetch)
view_as: Any = _view_as_interpreted if INTERPRETED else intrinsic(_view_as)
multiply_fold: Any = _multiply_fold_interpreted if INTERPRETED else intrinsic(_multiply_fold)
