"""Configs that a user hands to a command as a file."""

import json
import tomllib
from pathlib import Path
from typing import Any

from lab.errors import ConfigError


def read_config(path: Path | None) -> dict[str, Any]:
    """Return the file's object, {} for no file; raise ConfigError that names file and reason.

    TOML, unless the name ends in .json.
    """
    if path is None:
        return {}
    try:
        text = path.read_text(encoding="utf-8")
        read = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from error
    except ValueError as error:  # of either format, and of text that is not UTF-8
        raise ConfigError(f"{path}: not valid {path.suffix or 'TOML'} ({error})") from error
    if not isinstance(read, dict):
        raise ConfigError(f"{path}: an object is needed, not a {type(read).__name__}")
    return read
