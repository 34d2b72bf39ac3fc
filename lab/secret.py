"""The secret that a service and those who may use it share, from the environment.

One for all: it says that somebody belongs to the lab, not who it is. It is never shown, not even
in errors.
"""

import os
from pathlib import Path

from lab.errors import ConfigError

MIN_LENGTH = 16
PLAIN, FILE = "PNNLAB_SECRET", "PNNLAB_SECRET_FILE"


def secret_of_environment() -> str | None:
    """Return PNNLAB_SECRET, or what stands in the file PNNLAB_SECRET_FILE; None without either.

    An empty PNNLAB_SECRET_FILE names no file; an empty PNNLAB_SECRET is too short. Raises
    ConfigError for both, a file that cannot be read, and as `checked_secret`.
    """
    plain, file = os.environ.get(PLAIN), os.environ.get(FILE) or None
    if plain is not None and file is not None:
        raise ConfigError(f"{PLAIN} and {FILE} are both set; one is enough")
    if plain is not None:
        return checked_secret(plain, PLAIN)
    return None if file is None else checked_secret(_read(Path(file)), FILE)


def chosen_secret(secret: str | None) -> str | None:
    """Return a secret that was given, checked, or else the environment's; raise as those do."""
    return secret_of_environment() if secret is None else checked_secret(secret, "secret")


def checked_secret(secret: str, source: str) -> str:
    """Return a secret that is long enough, of characters that a header may carry.

    Raises ConfigError that names `source` and not the secret.
    """
    if len(secret) < MIN_LENGTH:
        raise ConfigError(
            f"{source}: a secret has at least {MIN_LENGTH} characters, this one {len(secret)}"
        )
    if not all("!" <= character <= "~" for character in secret):
        raise ConfigError(f"{source}: a secret is printable ASCII without spaces")
    return secret


def authorisation(secret: str | None) -> dict[str, str]:
    """Return the headers that show a secret; none without one."""
    return {} if secret is None else {"Authorization": f"Bearer {secret}"}


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace").strip()
    except OSError as error:
        raise ConfigError(f"{FILE}: {path}: {error.strerror}") from error
