"""Compile the loops of a plant, and keep the machine code on disk wherever that is possible."""

import logging
from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba

F = TypeVar("F", bound=Callable[..., Any])

log = logging.getLogger(__name__)


def compiled(**options: Any) -> Callable[[F], F]:
    """Compile on the first call, with numba's `options`.

    The machine code is kept in NUMBA_CACHE_DIR if that is set, else beside the module, else in the
    user's cache folder (numba's own order). Where none of them can be written, as in a read-only
    container, every process compiles anew, which takes seconds, and says so in the log.
    """

    def compile_it(function: F) -> F:
        try:
            return cast(F, numba.njit(cache=True, **options)(function))
        except RuntimeError as error:  # numba finds no folder that it can write
            log.warning("compiled code is not kept, NUMBA_CACHE_DIR would help: %s", error)
            return cast(F, numba.njit(**options)(function))

    return compile_it
