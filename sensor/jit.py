"""The decorators of compiled code: ``@kernel`` for what Python calls, ``@inner`` for what kernels call.

Everything that runs per packet is a kernel: plain Python over NumPy arrays that numba compiles to native
code. A kernel never raises, never allocates, and never keeps state but in the arrays that it is given.

The compiled code is cached on disk, in a directory whose name holds the digest of the kernels' sources, the
versions and the flags: numba's own cache key does not notice a change in a function imported from another
file (numba issue 1833), nor a change of the bounds-check flag. The cache files are pickles, so the directory
belongs to us alone (mode 0700, our uid) or caching is off.

Environment: ``SENSOR_CACHE_DIR`` (where to cache), ``SENSOR_BOUNDSCHECK=0`` (drop the array bounds checks,
which are on in production), ``NUMBA_DISABLE_JIT=1`` (run the kernels as plain Python, for a debugger or
coverage).
"""

from __future__ import annotations

import copy
import hashlib
import os
import stat
import sys
import warnings
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import numba
import numpy as np
from numba.core import inline_closurecall
from numba.core.types.misc import unliteral

from sensor.quickload import load_quickly

if TYPE_CHECKING:
    from collections.abc import Callable

_F = TypeVar("_F", bound="Callable[..., Any]")

BOUNDSCHECK = os.environ.get("SENSOR_BOUNDSCHECK", "1") != "0"
JIT_DISABLED = bool(numba.config.DISABLE_JIT)


#: The packages that hold kernels, in import order: a kernel's code can only come from its own layer and those
#: before it, and from the modules that all of them use.
_LAYERS = ("decode", "events", "devices", "model")
_COMMON = ("jit.py", "quickload.py", "native.py", "hashing.py", "capture/frames.py")


def _sources(module: str) -> list[Path]:
    """Return every source file that a kernel of ``module`` may be compiled from."""
    package = Path(__file__).parent
    layer = module.split(".")[1] if module.startswith("sensor.") else _LAYERS[-1]
    layers = _LAYERS[: _LAYERS.index(layer) + 1] if layer in _LAYERS else (layer,)
    folders = [sorted((package / name).glob("*.py")) for name in layers]
    return [package / name for name in _COMMON] + [path for folder in folders for path in folder]


def _source_digest(module: str) -> str:
    """Return a digest over the sources of a module's kernels, and over what compiles them.

    And over where these lie and since when: numba uses nothing that it compiled from another path, or at another time.
    """
    digest = hashlib.sha256(f"{sys.version_info[:3]} {numba.__version__} {np.__version__}".encode())
    for path in _sources(module):
        digest.update(f"{path} {path.stat().st_mtime_ns}".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _cache_base() -> Path:
    for variable in ("SENSOR_CACHE_DIR", "CACHE_DIRECTORY"):  # the second is systemd's CacheDirectory=
        value = os.environ.get(variable)
        if value:
            return Path(value.split(":")[0])
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "spamsensor"


@cache
def _prepare_cache(module: str) -> Path | None:
    """Create the cache directory for one module's kernels; None, with a warning, if it cannot be ours alone."""
    try:
        base = _cache_base()
        directory = base / f"{module}-{_source_digest(module)}-{'bc' if BOUNDSCHECK else 'nobc'}"
        for path in (base, directory):
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            status = path.lstat()
            if status.st_uid != os.geteuid() or not stat.S_ISDIR(status.st_mode):
                raise PermissionError(f"{path} is not a directory of ours")
            if status.st_mode & 0o022:
                raise PermissionError(f"{path} can be written by others")
        if not os.access(directory, os.W_OK):
            raise PermissionError(f"{directory} is not writable")
    except (OSError, RuntimeError) as reason:
        warnings.warn(f"kernels are compiled anew at each start: {reason}", RuntimeWarning, stacklevel=2)
        return None
    return directory


#: Without numba's run time (``_nrt``) a kernel that allocates does not compile, which is what we want anyway,
#: and arrays are passed without counting references to them: measured in sensor/decode, 9 against 200 ns a
#: frame. The option is private to numba; if it goes away, kernels are slower and nothing else.
_OPTIONS: dict[str, Any] = {
    "nogil": True,
    "boundscheck": BOUNDSCHECK,
    "error_model": "numpy",
    "_nrt": False,
}


#: Widens an integer in a kernel; a name of its own, because to a type checker a kernel's integers are plain ``int``.
i64: Callable[[Any], int] = cast("Callable[[Any], int]", np.int64)


def kernel(function: _F) -> _F:
    """Compile a function that Python calls; its machine code is cached on disk."""
    directory = None if JIT_DISABLED else _prepare_cache(function.__module__)
    if directory is not None:
        numba.config.CACHE_DIR = str(directory)
    dispatcher = numba.njit(**_OPTIONS, cache=directory is not None)(function)
    if directory is not None:
        load_quickly(dispatcher)
    return cast("_F", dispatcher)


def _compile_inner(function: Any, **options: Any) -> Any:
    """Compile a function that kernels call, once.

    Numba would compile it anew for each constant that it is called with; LLVM carries constants into what it
    inlines without that. ``get_call_template`` is private to numba, as ``_nrt`` is.
    """
    dispatcher = numba.njit(**(_OPTIONS | options))(function)
    if JIT_DISABLED:
        return dispatcher
    get_call_template = dispatcher.get_call_template

    def without_literals(args: Any, kws: Any) -> Any:
        plain = {name: unliteral(kind) for name, kind in dict(kws).items()}
        return get_call_template(tuple(unliteral(kind) for kind in args), plain)

    dispatcher.get_call_template = without_literals
    return dispatcher


class _BlockCopies:
    """Stands for the module ``copy`` where numba splices functions.

    There each block of a function is copied by itself, and with each, over and over, the scope that all of them
    share, with all variables: a quarter of the time of compiling. Here the blocks of a scope share the copy.
    """

    def __init__(self) -> None:
        self._scope: object = None
        self._copied: dict[int, Any] = {}

    def deepcopy(self, block: Any) -> Any:
        if block.scope is not self._scope:
            self._scope, self._copied = block.scope, {}
        return copy.deepcopy(block, self._copied)


inline_closurecall.copy = _BlockCopies()


def inner(function: _F) -> _F:
    """Compile a function that only kernels call: it becomes part of them, so it needs no cache of its own."""
    return cast("_F", _compile_inner(function))


def inlined(function: _F) -> _F:
    """Compile an inner function that is worth its call overhead: it is put in its callers' place whatever its size."""
    return cast("_F", _compile_inner(function, forceinline=True))


def spliced(function: _F) -> _F:
    """Put an inner function in its caller's place before anything is compiled.

    For the links of a chain that each have one call site: passing tables on costs nothing then, and each link
    is compiled once and not again with every link above it.
    """
    return cast("_F", numba.njit(**_OPTIONS, inline="always")(function))


def unchecked(function: _F) -> _F:
    """Compile without bounds checks an inner function that checks its whole range before its loop (decode/wire.py)."""
    return cast("_F", _compile_inner(function, boundscheck=False))


def is_compiled(module: str) -> bool:
    """Tell whether a module's kernels are cached, or need no compiling: else their first call takes long."""
    if JIT_DISABLED:
        return True
    directory = _prepare_cache(module)
    return directory is not None and next(directory.rglob("*.nbi"), None) is not None
