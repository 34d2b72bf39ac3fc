"""Configs that a user hands to a command as a file, or key by key."""

import json
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from lab.errors import ConfigError
from lab.recipes import merged


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


def read_settings(settings: Iterable[str]) -> dict[str, Any]:
    """Return the object that settings such as `rows=300` or `twin.kind=neural` make.

    A value is JSON, or else the text itself. Raises ConfigError for what is no setting.
    """
    fields: dict[str, Any] = {}
    for setting in settings:
        path, equals, text = setting.partition("=")
        *outer, key = path.split(".")
        if not equals or not all([*outer, key]):
            raise ConfigError(f"'{setting}' is not a setting such as rows=300 or twin.rows=300")
        field: dict[str, Any] = {key: _value(text)}
        for name in reversed(outer):
            field = {name: field}
        fields = merged(fields, field)
    return fields


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
