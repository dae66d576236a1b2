"""Load cached kernels without what numba needs only to compile.

Before numba looks into its cache, it fills its tables of everything that it could compile, and imports for that
what it finds (SciPy, too). With each kernel it then reads the kernel's LLVM code, for other functions to put in their
place, which nobody does with a kernel: much of the time until the first packet, and of the memory.

What is patched here is private to numba. Nothing else depends on it: a compiled kernel is the same, and with a numba
that has it not, kernels load as numba loads them.
"""

from __future__ import annotations

import functools
from typing import Any

import llvmlite.binding as llvm
from numba.core.errors import TypingError
from numba.core.registry import cpu_target


def load_quickly(dispatcher: Any) -> None:
    """Make a function that ``numba.njit(cache=True)`` returned load quickly; compiled functions cannot call it then."""
    if not _can_patch(dispatcher):
        return
    cache, implementation = dispatcher._cache, dispatcher._cache._impl
    reduce, rebuild = implementation.reduce, implementation.rebuild

    def reduce_to_object_code(compiled: Any) -> Any:
        (name, kind, (code, _)), *rest = reduce(compiled)
        return (name, kind, (code, _no_llvm_code())), *rest

    def rebuild_from_object_code(context: Any, reduced: Any) -> Any:
        names = reduced[1]
        # Numba would read these, which Python calls, from the LLVM code.
        _symbols().update(
            (names.llvm_func_name, names.llvm_cpython_wrapper_name, names.llvm_cfunc_wrapper_name)
        )
        return rebuild(context, reduced)

    def load_overload(signature: Any, context: Any) -> Any:
        return cache._load_overload(signature, context)

    def refuse_call(*_: Any) -> Any:
        raise TypingError(f"{dispatcher.__name__} is a kernel: Python calls it, and no compiled function")

    implementation.reduce = reduce_to_object_code
    implementation.rebuild = rebuild_from_object_code
    cache.load_overload = load_overload
    dispatcher.get_call_template = refuse_call


def _can_patch(dispatcher: Any) -> bool:
    cache = getattr(dispatcher, "_cache", None)
    parts = (getattr(cache, "_load_overload", None), getattr(cache, "_impl", None), _symbols())
    return None not in parts and isinstance(parts[-1], set)


@functools.cache
def _symbols() -> Any:
    """Return the set of names for which numba has code, None if it has no such set."""
    try:
        return cpu_target.target_context.codegen()._engine._defined_symbols
    except AttributeError:
        return None


def _no_llvm_code() -> bytes:
    code: bytes = llvm.parse_assembly("").as_bitcode()
    return code
