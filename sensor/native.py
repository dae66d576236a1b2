"""What numba cannot say, written in LLVM's instructions: tables passed as one pointer, a search in a block of bytes.

``@by_pointer``: numba passes a tuple by value. Every call of an inner function would push each array of it,
seven words apiece, 150 to 280 words for our tables, and every function would be compiled with as many
arguments. A decorated class is laid out once, on the stack of the kernel's entry, and handed on as a pointer.
Which arrays it holds cannot change while the kernel runs, so what is read through the pointer is marked
invariant, and read once. With the JIT off it is the named tuple that it is.

``first_in_block``: LLVM does not turn a loop with an exit into vector instructions.

Numba and llvmlite have no type annotations: each ``type: ignore`` below is about a decorator or a base class of theirs,
but for ``_fields``, which every NamedTuple has and ``type`` does not say.

``prefetch``: rows of a large table are found by hashing, so each is a cache miss; asked for a few packets
ahead, it is there in time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import numba
from llvmlite import ir
from numba.core import cgutils, types
from numba.core.datamodel import models
from numba.core.imputils import impl_ret_borrowed
from numba.core.typing.templates import AttributeTemplate, infer_getattr
from numba.extending import (
    NativeValue,
    intrinsic,
    lower_getattr_generic,
    overload,
    register_model,
    typeof_impl,
    unbox,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy.typing import NDArray

#: Bytes that ``first_in_block`` looks at: a vector register of today's processors.
BLOCK = 32

CACHE_LINE = 64

_C = TypeVar("_C", bound=type)


class Tables(types.Type):
    """Numba's type of a decorated class whose fields have the types ``members``."""

    def __init__(self, kind: type, members: tuple[Any, ...]) -> None:
        self.fields: tuple[str, ...] = kind._fields  # type: ignore[attr-defined]
        self.members = members
        super().__init__(name=f"{kind.__module__}.{kind.__qualname__}({', '.join(map(str, members))})")


def by_pointer(kind: _C) -> _C:
    """Decorate a NamedTuple of arrays."""

    @typeof_impl.register(kind)  # type: ignore[untyped-decorator]
    def typeof_tables(value: Any, _: Any) -> Tables:
        return Tables(kind, tuple(numba.typeof(member) for member in value))

    return kind


def arrays_of(tables: Iterable[Any]) -> Iterator[NDArray[Any]]:
    """Yield the arrays of a decorated class, and of those among its fields, in their order."""
    for member in tables:
        if isinstance(member, tuple):
            yield from arrays_of(member)
        else:
            yield member


@register_model(Tables)
class _TablesModel(models.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, manager: Any, tables: Tables) -> None:
        content = ir.LiteralStructType([manager.lookup(member).get_value_type() for member in tables.members])
        super().__init__(manager, tables, content.as_pointer())


@infer_getattr
class _TablesAttribute(AttributeTemplate):  # type: ignore[misc]
    key = Tables

    def generic_resolve(self, tables: Tables, name: str) -> Any:
        return tables.members[tables.fields.index(name)] if name in tables.fields else None


@lower_getattr_generic(Tables)  # type: ignore[untyped-decorator]
def _get_member(context: Any, builder: Any, tables: Tables, pointer: Any, name: str) -> Any:
    i = tables.fields.index(name)
    member = _load_invariant(builder, cgutils.gep_inbounds(builder, pointer, 0, i))
    return impl_ret_borrowed(context, builder, tables.members[i], member)


def _load_invariant(builder: Any, place: Any) -> Any:
    """Load a value leaf by leaf: of a whole aggregate LLVM would load also what nobody uses."""
    kind = place.type.pointee
    if not isinstance(kind, ir.LiteralStructType | ir.ArrayType):
        leaf = builder.load(place)
        leaf.set_metadata("invariant.load", builder.module.add_metadata([]))
        return leaf
    value = ir.Constant(kind, ir.Undefined)
    for i in range(len(kind)):
        leaf = _load_invariant(builder, cgutils.gep_inbounds(builder, place, 0, i))
        value = builder.insert_value(value, leaf, i)
    return value


@unbox(Tables)  # type: ignore[untyped-decorator]
def _unbox_tables(tables: Tables, value: Any, c: Any) -> Any:
    place = cgutils.alloca_once(c.builder, c.context.get_value_type(tables).pointee)
    is_error = cgutils.false_bit
    for i, member in enumerate(tables.members):
        native = c.unbox(member, c.pyapi.tuple_getitem(value, i))
        c.builder.store(native.value, cgutils.gep_inbounds(c.builder, place, 0, i))
        is_error = c.builder.or_(is_error, native.is_error)
    return NativeValue(place, is_error=is_error)


def first_in_block(data: NDArray[Any], pos: int, value: int) -> int:
    """Return where the first ``value`` is in the u8 ``data[pos : pos + BLOCK]``, BLOCK if it is not.

    Nothing is checked here: the caller knows that the block lies within ``data``.
    """
    found = data[pos : pos + BLOCK].tobytes().find(value)
    return found if found >= 0 else BLOCK


@overload(first_in_block)  # type: ignore[untyped-decorator]
def _compile_first_in_block(data: Any, pos: Any, value: Any) -> Any:  # noqa: ARG001 - their names are its signature
    def compiled(data: Any, pos: Any, value: Any) -> Any:
        return _first_in_block(data, pos, value)

    return compiled


@intrinsic  # type: ignore[untyped-decorator]
def _first_in_block(_: Any, data: Any, pos: Any, value: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array = context.make_array(signature.args[0])(context, builder, arguments[0])
        byte, mask, wide = ir.IntType(8), ir.IntType(BLOCK), ir.IntType(64)
        vector, lanes = ir.VectorType(byte, BLOCK), ir.VectorType(ir.IntType(32), BLOCK)
        nothing = ir.Constant(vector, ir.Undefined)
        block = builder.load(
            builder.bitcast(builder.gep(array.data, [arguments[1]]), vector.as_pointer()), align=1
        )
        wanted = builder.insert_element(
            nothing, builder.trunc(arguments[2], byte), ir.Constant(ir.IntType(32), 0)
        )
        wanted = builder.shuffle_vector(wanted, nothing, ir.Constant(lanes, [0] * BLOCK))
        found = builder.zext(
            builder.bitcast(builder.icmp_unsigned("==", block, wanted), mask), wide
        )  # bit k: byte k is it
        or_none = builder.or_(found, ir.Constant(wide, 1 << BLOCK))
        return builder.cttz(or_none, ir.Constant(ir.IntType(1), 1))

    return types.int64(data, pos, value), generate


def prefetch(table: NDArray[Any], row: int) -> None:
    """Ask for ``table[row]`` to be brought into the cache; changes nothing that can be seen."""


@overload(prefetch)  # type: ignore[untyped-decorator]
def _compile_prefetch(table: Any, row: Any) -> Any:  # noqa: ARG001 - their names are its signature
    def compiled(table: Any, row: Any) -> Any:
        _prefetch(table, row)

    return compiled


@intrinsic  # type: ignore[untyped-decorator]
def _prefetch(_: Any, table: Any, row: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array = context.make_array(signature.args[0])(context, builder, arguments[0])
        byte, word = ir.IntType(8).as_pointer(), ir.IntType(32)
        ask = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(ir.VoidType(), [byte, word, word, word]), "llvm.prefetch.p0"
        )
        first = builder.bitcast(builder.gep(array.data, [arguments[1]]), byte)
        for offset in range(0, context.get_abi_sizeof(array.data.type.pointee), CACHE_LINE):
            line = builder.gep(first, [ir.Constant(ir.IntType(64), offset)])
            for_writing, keep, of_data = (ir.Constant(word, value) for value in (1, 3, 1))
            builder.call(ask, [line, for_writing, keep, of_data])
        return context.get_dummy_value()

    return types.none(table, row), generate
