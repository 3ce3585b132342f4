"""Call functions of C libraries from compiled code, by their addresses.

An address is an argument, so the machine code does not depend on it and can be kept on disk. Arguments and results are
words of 64 bits. Knows no library: libzmq.py does. Only for compiled code; called by socket_kernels.py.
"""

from typing import Any, Final

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

#: Numba is typed in parts, and differently from version to version: as Any it is the same in all.
_intrinsic: Any = intrinsic
_types: Any = types
_WORD: Final = _types.int64


def _generate(_context: Any, builder: Any, _signature: Any, values: Any) -> Any:
    word = ir.IntType(64)
    function = ir.FunctionType(word, [word] * (len(values) - 1))
    return builder.call(builder.inttoptr(values[0], ir.PointerType(function)), values[1:])


@_intrinsic  # type: ignore[untyped-decorator]
def call_0(_: Any, address: Any) -> Any:
    """Call a function without arguments; an intrinsic."""
    return _WORD(_WORD), _generate


@_intrinsic  # type: ignore[untyped-decorator]
def call_1(_: Any, address: Any, first: Any) -> Any:
    """Call a function with one argument; an intrinsic."""
    return _WORD(_WORD, _WORD), _generate


@_intrinsic  # type: ignore[untyped-decorator]
def call_2(_: Any, address: Any, first: Any, second: Any) -> Any:
    """Call a function with two arguments; an intrinsic."""
    return _WORD(_WORD, _WORD, _WORD), _generate


@_intrinsic  # type: ignore[untyped-decorator]
def call_3(_: Any, address: Any, first: Any, second: Any, third: Any) -> Any:
    """Call a function with three arguments; an intrinsic."""
    return _WORD(_WORD, _WORD, _WORD, _WORD), _generate


@_intrinsic  # type: ignore[untyped-decorator]
def call_4(_: Any, address: Any, first: Any, second: Any, third: Any, fourth: Any) -> Any:
    """Call a function with four arguments; an intrinsic."""
    return _WORD(_WORD, _WORD, _WORD, _WORD, _WORD), _generate
