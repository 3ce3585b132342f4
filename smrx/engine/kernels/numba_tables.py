# Numba is typed in parts, and differently from version to version.
# mypy: disable-error-code="no-untyped-call, attr-defined, arg-type, override, misc"
"""Numba types for memory: a table of records, and the state as one pointer.

A NumPy array in Numba is seven values with a reference count, and a State is more than twenty arrays; passing that
from kernel to kernel would cost more than most kernels do, and most of the time to compile them. So kernels get

- a *table*: address and length, without a reference count; `table[slot]` is the record (or the word), not a copy. The
  bound is checked only with NUMBA_BOUNDSCHECK=1, when an access outside raises IndexError;
- a *state*: the address of a list of addresses and lengths, one pair an array; `state.orders` is a table. Behind the
  state's arrays are the details of the commands that are being applied, `state.details`, as ORDER_DETAILS with words
  for its text, and in the list of apply what a call writes: `state.outcomes`, `state.hashes`, `state.events` and the
  same events as `state.words`, and what it keeps from command to command, `state.ahead`;
- `view_as(record, LAYOUT)` of jit.py: the same record under the field names of another layout.

The arrays belong to Python, which keeps them alive during a call (engine.py). Without compilation (see jit.py) the same
source runs on `interpreted` arrays, and on a State of them.
"""

import operator
from typing import Any, Final

import numpy as np
from llvmlite import ir
from numba import config, from_dtype, types
from numba.core import cgutils
from numba.core.typing.templates import AttributeTemplate, infer_getattr
from numba.extending import (
    NativeValue,
    intrinsic,
    lower_builtin,
    lower_getattr_generic,
    models,
    register_model,
    type_callable,
    unbox,
)

from smrx.engine.kernels.jit import INTERPRETED, begin_load
from smrx.engine.kernels.layouts import AHEAD, ORDER_DETAILS_WORDS
from smrx.engine.state import DTYPES, INDEXES, State, in_use
from smrx.wire.records import EVENT, OUTCOME

_U64: Final = np.dtype("<u8")
#: What a call of apply has beside the state, behind it in the list.
CALL_DTYPES: Final = {
    "details": ORDER_DETAILS_WORDS, "outcomes": OUTCOME, "hashes": _U64, "events": EVENT, "words": _U64, "ahead": AHEAD,
}  # fmt: skip
_FIELDS: Final = {
    name: (number, from_dtype(dtype)) for number, (name, dtype) in enumerate((DTYPES | CALL_DTYPES).items())
}
_WORD: Final = ir.IntType(64)
_BYTE_POINTER: Final = ir.IntType(8).as_pointer()


class TableType(types.Type):
    """The type of a table, by the type of its elements."""

    def __init__(self, element: Any) -> None:
        self.element = element
        super().__init__(name=f"Table({element})")


class StateType(types.Type):
    """The type of the list of addresses that represents a State."""

    def __init__(self) -> None:
        super().__init__(name="State")


class _TableModel(models.StructModel):
    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, [("base", types.voidptr), ("length", types.int64)])


class _StateModel(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, _BYTE_POINTER)


class _StateFields(AttributeTemplate):
    key = StateType

    def generic_resolve(self, _: Any, name: str) -> Any:
        return TableType(_FIELDS[name][1]) if name in _FIELDS else None


class InterpretedRecord:
    """A record of an array with its fields as attributes, for kernels that run without compilation."""

    __slots__ = ("_array", "_record", "_slot")

    def __init__(self, array: Any, slot: Any) -> None:
        object.__setattr__(self, "_array", array)
        object.__setattr__(self, "_slot", slot)
        object.__setattr__(self, "_record", array[slot])

    def __getattr__(self, name: str) -> Any:
        return self._record[name]

    def __setattr__(self, name: str, value: Any) -> None:
        self._record[name] = value

    def viewed_as(self, layout: Any) -> "InterpretedRecord":
        """Return the same bytes through another layout."""
        return InterpretedRecord(self._array.view(layout), self._slot)


class InterpretedTable:
    """An array of records, for kernels that run without compilation."""

    __slots__ = ("_array",)

    def __init__(self, array: Any) -> None:
        self._array = array

    def __len__(self) -> int:
        return len(self._array)

    def __getitem__(self, slot: Any) -> Any:
        if isinstance(slot, slice):
            return InterpretedTable(self._array[slot])
        return InterpretedRecord(self._array, slot)


class InterpretedState:
    """A State and what a call has beside it, for kernels that run without compilation."""

    def __init__(self, state: State, details: Any, **buffers: Any) -> None:
        for name, array in zip(State._fields, state, strict=True):
            setattr(self, name, interpreted(in_use(array) if name in INDEXES else array))
        self.details = interpreted(details.view(ORDER_DETAILS_WORDS))
        for name, array in buffers.items():
            setattr(self, name, interpreted(array))


def interpreted(array: Any) -> Any:
    """Return an array for kernels that run without compilation: words stay words, records get attributes."""
    return InterpretedTable(array) if array.dtype.names else array


def _make_table(context: Any, builder: Any, kind: Any, base: Any, length: Any) -> Any:
    table = cgutils.create_struct_proxy(kind)(context, builder)
    table.base = base
    table.length = length
    return table._getvalue()


def _unbox_table(kind: Any, array: Any, code: Any) -> Any:
    """Generate code that takes an array of one dimension as a table, without a reference to it.

    Raises TypeError for an object that is no array of such elements one behind the other.
    """
    builder = code.builder
    native = code.context.make_array(types.Array(kind.element, 1, "A"))(code.context, builder)
    signature = ir.FunctionType(ir.IntType(32), [code.pyapi.pyobj, code.pyapi.voidptr])
    # Numba calls this one for arrays if it counts no references.
    adapt = code.pyapi._get_function(signature, name="numba_adapt_ndarray")
    failed = builder.call(adapt, [array, builder.bitcast(native._getpointer(), code.pyapi.voidptr)])
    size = ir.Constant(_WORD, code.context.get_abi_sizeof(code.context.get_data_type(kind.element)))
    has_gaps = builder.icmp_signed("!=", builder.extract_value(native.strides, 0), size)
    has_gaps = builder.and_(has_gaps, builder.icmp_signed(">", native.nitems, ir.Constant(_WORD, 1)))
    is_wrong = builder.or_(cgutils.is_not_null(builder, failed), builder.icmp_signed("!=", native.itemsize, size))
    is_wrong = builder.or_(is_wrong, has_gaps)
    with builder.if_then(is_wrong, likely=False):
        code.pyapi.err_set_string("PyExc_TypeError", f"expected an array of one dimension for {kind}")
    data = builder.bitcast(native.data, _BYTE_POINTER)
    return NativeValue(_make_table(code.context, builder, kind, data, native.nitems), is_error=is_wrong)


def _field(context: Any, builder: Any, _: Any, state: Any, name: str) -> Any:
    """Generate code for `state.name`."""
    number, element = _FIELDS[name]
    words = builder.bitcast(state, _WORD.as_pointer())
    found = []
    for offset in (0, 1):
        word = builder.load(builder.gep(words, [ir.Constant(_WORD, 2 * number + offset)]))
        # Python replaces arrays only between calls, so LLVM may load each word once.
        word.set_metadata("invariant.load", builder.module.add_metadata([]))
        found.append(word)
    return _make_table(context, builder, TableType(element), builder.inttoptr(found[0], _BYTE_POINTER), found[1])


def _type_getitem(_: Any) -> Any:
    def typer(table: Any, slot: Any) -> Any:
        return table.element if isinstance(table, TableType) and isinstance(slot, types.Integer) else None

    return typer


def _type_setitem(_: Any) -> Any:
    def typer(table: Any, slot: Any, value: Any) -> Any:
        if isinstance(table, TableType) and isinstance(table.element, types.Integer):
            return types.void(table, slot, table.element)
        return None

    return typer


def _type_len(_: Any) -> Any:
    def typer(table: Any) -> Any:
        return types.int64 if isinstance(table, TableType) else None

    return typer


def _element(context: Any, builder: Any, kinds: Any, values: Any) -> Any:
    """Generate code for the address of an element."""
    table = cgutils.create_struct_proxy(kinds[0])(context, builder, value=values[0])
    slot = context.cast(builder, values[1], kinds[1], types.uint64)
    if config.BOUNDSCHECK:
        outside = builder.icmp_unsigned(">=", slot, table.length)
        with cgutils.if_unlikely(builder, outside):
            context.call_conv.return_user_exc(builder, IndexError, (f"outside of {kinds[0]}",))
    size = context.get_abi_sizeof(context.get_data_type(kinds[0].element))
    return builder.gep(table.base, [builder.mul(slot, ir.Constant(_WORD, size))])


def _getitem(context: Any, builder: Any, signature: Any, values: Any) -> Any:
    element = signature.args[0].element
    address = _element(context, builder, signature.args, values)
    if isinstance(element, types.Record):
        return builder.bitcast(address, context.get_value_type(element))
    return builder.load(builder.bitcast(address, context.get_value_type(element).as_pointer()))


def _setitem(context: Any, builder: Any, signature: Any, values: Any) -> Any:
    address = _element(context, builder, signature.args, values)
    place = builder.bitcast(address, context.get_value_type(signature.args[0].element).as_pointer())
    builder.store(values[2], place)
    return context.get_dummy_value()


def _len(context: Any, builder: Any, signature: Any, values: Any) -> Any:
    return cgutils.create_struct_proxy(signature.args[0])(context, builder, value=values[0]).length


def _table_of(_: Any, array: Any) -> Any:
    """An array as a table."""
    element = array.dtype

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        seen = context.make_array(signature.args[0])(context, builder, values[0])
        return _make_table(context, builder, TableType(element), builder.bitcast(seen.data, _BYTE_POINTER), seen.nitems)

    return TableType(element)(array), generate


def base_of(context: Any, builder: Any, kind: Any, value: Any) -> Any:
    """Generate code for the address of the first element of a table or an array."""
    if isinstance(kind, TableType):
        return cgutils.create_struct_proxy(kind)(context, builder, value=value).base
    return context.make_array(kind)(context, builder, value).data


def _table_at(_: Any, table: Any, offset: Any, length: Any) -> Any:
    """The table that begins so many elements behind the beginning of another one, in the same memory."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        kind = signature.args[0]
        seen = cgutils.create_struct_proxy(kind)(context, builder, value=values[0])
        size = context.get_abi_sizeof(context.get_data_type(kind.element))
        base = builder.gep(seen.base, [builder.mul(values[1], ir.Constant(_WORD, size))])
        return _make_table(context, builder, kind, base, values[2])

    return table(table, types.int64, types.int64), generate


def _table_at_interpreted(array: Any, offset: int, length: int) -> Any:
    """The same of an array that is a part of another one."""
    raw = array.base.view("u1").reshape(-1)
    start = array.ctypes.data - raw.ctypes.data + offset * array.itemsize
    return raw[start : start + length * array.itemsize].view(array.dtype)


def _state_of(_: Any, addresses: Any) -> Any:
    """An array of addresses and lengths as a state."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        seen = context.make_array(signature.args[0])(context, builder, values[0])
        return builder.bitcast(seen.data, _BYTE_POINTER)

    return StateType()(addresses), generate


def _state_at(_: Any, address: Any) -> Any:
    """The same of such an array at an address."""

    def generate(_context: Any, builder: Any, _signature: Any, values: Any) -> Any:
        return builder.inttoptr(values[0], _BYTE_POINTER)

    return StateType()(address), generate


def _part_of(_: Any, table: Any, first: Any, length: Any) -> Any:
    """The elements of a table from one on, so many; an intrinsic."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        # Without a bounds check: an empty part may begin at the end of the table.
        size = context.get_abi_sizeof(context.get_data_type(table.element))
        whole = cgutils.create_struct_proxy(table)(context, builder, value=values[0])
        base = builder.gep(whole.base, [builder.mul(values[1], ir.Constant(_WORD, size))])
        return _make_table(context, builder, table, base, values[2])

    return table(table, types.int64, types.int64), generate


def _part_of_interpreted(table: Any, first: Any, length: Any) -> Any:
    """The same in Python."""
    return table[first : first + length]


def _prefetch_element(_: Any, table: Any, slot: Any) -> Any:
    """Begin to load the cache line of an element; an intrinsic."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        begin_load(builder, _element(context, builder, signature.args, values))
        return context.get_dummy_value()

    return types.void(table, slot), generate


def _prefetch_element_interpreted(_table: Any, _slot: Any) -> None:
    """Nothing: only the time differs."""


register_model(TableType)(_TableModel)
register_model(StateType)(_StateModel)
unbox(TableType)(_unbox_table)
infer_getattr(_StateFields)
lower_getattr_generic(StateType)(_field)
type_callable(operator.getitem)(_type_getitem)
type_callable(operator.setitem)(_type_setitem)
type_callable(len)(_type_len)
lower_builtin(operator.getitem, TableType, types.Integer)(_getitem)
lower_builtin(operator.setitem, TableType, types.Integer, types.Integer)(_setitem)
lower_builtin(len, TableType)(_len)
table_of: Any = interpreted if INTERPRETED else intrinsic(_table_of)
table_at: Any = _table_at_interpreted if INTERPRETED else intrinsic(_table_at)
state_of: Any = intrinsic(_state_of)
state_at: Any = intrinsic(_state_at)
part_of: Any = _part_of_interpreted if INTERPRETED else intrinsic(_part_of)
prefetch_element: Any = _prefetch_element_interpreted if INTERPRETED else intrinsic(_prefetch_element)
