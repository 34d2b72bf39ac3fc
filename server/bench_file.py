"""Write a bench file: the same keys that `lab.bench_config.load_bench` reads, as TOML."""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lab.bench_config import BenchConfig
from lab.errors import ConfigError

_BARE = re.compile(r"[A-Za-z0-9_-]+")


def write_bench(path: Path, bench: BenchConfig) -> None:
    """Write what the bench file says, defaults left out; raise ConfigError if that fails."""
    try:
        path.write_text(as_toml(bench.model_dump(mode="json", exclude_unset=True)), "utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written ({error.strerror})") from error


def as_toml(data: Mapping[str, Any]) -> str:
    """Return a TOML document of texts, numbers, booleans, lists and tables; None is left out."""
    return "\n".join(_table((), data)).lstrip("\n") + "\n"


def _table(path: tuple[str, ...], data: Mapping[str, Any]) -> Iterator[str]:
    values = {k: v for k, v in data.items() if v is not None and not isinstance(v, Mapping)}
    tables = {k: v for k, v in data.items() if isinstance(v, Mapping)}
    if path and (values or not tables):
        yield f"\n[{'.'.join(map(_key, path))}]"
    yield from (f"{_key(key)} = {_value(value)}" for key, value in values.items())
    for key, value in tables.items():
        yield from _table((*path, key), value)


def _key(key: str) -> str:
    return key if _BARE.fullmatch(key) else _value(key)


def _value(value: Any) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case int() | float():
            return repr(value)  # TOML writes inf and nan as Python does
        case list() | tuple():
            return f"[{', '.join(map(_value, value))}]"
        case Mapping():
            return "{" + ", ".join(f"{_key(k)} = {_value(v)}" for k, v in value.items()) + "}"
    # what JSON escapes is escaped alike in TOML, which wants one character more to be
    return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")
