"""Time zones by their IANA names, and the one of this machine."""

import difflib
import os
from pathlib import Path
from zoneinfo import ZoneInfo, available_timezones

from lab.errors import ConfigError

_LOCALTIME = Path("/etc/localtime")


def find_zone(name: str) -> ZoneInfo:
    """Return the time zone of an IANA name such as Europe/Zurich; raise ConfigError."""
    try:
        return ZoneInfo(name)
    # no such name; not a name at all; the name of a folder of names
    except (KeyError, ValueError, OSError) as error:
        close = difflib.get_close_matches(name, available_timezones(), n=3)
        hint = f"did you mean {' or '.join(close)}" if close else "names are as in Europe/Zurich"
        raise ConfigError(f"time_zone: there is no '{name}'; {hint}") from error


def machine_zone(localtime: Path = _LOCALTIME) -> str:
    """Return the IANA name of this machine's time zone; raise ConfigError if it is not known.

    The variable TZ names it, or else the file that `localtime` links to.
    """
    name = os.environ.get("TZ", "").removeprefix(":")
    if not name:
        _, found, name = str(localtime.resolve()).rpartition("/zoneinfo/")
        name = name if found else ""
    if not name:
        raise ConfigError("time_zone: this machine does not tell the name of its own; give one")
    return find_zone(name).key
