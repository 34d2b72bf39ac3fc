"""Who asks a service, and by which key: what can stand in a header."""

import getpass
import os
import socket

from lab.errors import ConfigError


def client_name() -> str:
    """Return who asks unless it says otherwise: PNNLAB_CLIENT, or else user@host, in ASCII."""
    try:
        user = getpass.getuser()
    except (OSError, KeyError):  # a user without a name, as in a container
        user = "unknown"
    name = os.environ.get("PNNLAB_CLIENT") or f"{user}@{socket.gethostname()}"
    return name.encode("ascii", "replace").decode()


def checked_name(name: str | None) -> str:
    """Return a client's name, the default for None; raise ConfigError unless printable ASCII."""
    name = client_name() if name is None else name
    if not (name.isascii() and name.isprintable()):
        raise ConfigError(f"a client's name is printable ASCII, not {name!r}")
    return name


def checked_key(key: str) -> str:
    """Return an idempotency key; raise ConfigError unless printable ASCII."""
    if not (key and key.isascii() and key.isprintable()):
        raise ConfigError(f"a key is printable ASCII, at least one character, not {key!r}")
    return key
