"""Find what a bench file names by import path, `module:name`: a driver, a system or a rig."""

import importlib
from typing import Any


def imported(path: str) -> Any:
    """Return the `name` of `module:name`; raise ValueError if it cannot be imported."""
    module, _, name = path.partition(":")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"'{path}' cannot be imported ({error})") from error
