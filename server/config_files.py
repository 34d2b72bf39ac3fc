"""Configs that a user hands to a command as a file, or key by key."""

import json
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

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


def read_settings(settings: Iterable[str], kind: type[BaseModel]) -> dict[str, Any]:
    """Return the object that settings such as `rows=300` or `twin.kind=neural` make of a config.

    A value is JSON, or else the text itself; a number is text where `kind` has a string, as in an
    id of digits only. Raises ConfigError for what is no setting.
    """
    fields: dict[str, Any] = {}
    for setting in settings:
        name, equals, text = setting.partition("=")
        path = tuple(name.split("."))
        if not equals or not all(path):
            raise ConfigError(f"'{setting}' is not a setting such as rows=300 or twin.rows=300")
        field = _nested(path, _value(text))
        if _is_string(kind, path, field):
            field = _nested(path, text)
        fields = merged(fields, field)
    return fields


def _nested(path: tuple[str, ...], value: Any) -> dict[str, Any]:
    for name in reversed(path):
        value = {name: value}
    field: dict[str, Any] = value
    return field


def _is_string(kind: type[BaseModel], path: tuple[str, ...], field: dict[str, Any]) -> bool:
    """Say whether a config has a string at a path where `field` has another value."""
    try:
        kind.model_validate(field)
    except ValidationError as error:
        found = error.errors(include_url=False, include_context=False, include_input=False)
        return any((e["type"], e["loc"]) == ("string_type", path) for e in found)
    return False


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
