"""Whether the services that have the instruments let this one measure: they share one secret."""

import threading
from collections.abc import Iterable
from contextlib import closing
from urllib.parse import quote

from lab.calls import API, asking_headers
from lab.client import client_name
from lab.errors import ConfigError
from lab.jobs.hosts import KnownSystem
from lab.problems import PREFIX
from lab.remote_lines import BrokenOff, Call, LineLost, RemoteLines
from lab.secret import secret_of_environment

_ANSWER_WITHIN_S = 5.0
_UNAUTHORISED = f"{PREFIX}unauthorized".encode()


def refuse_strangers(systems: Iterable[KnownSystem]) -> None:
    """Raise ConfigError where a service refuses the environment's secret, or that there is none.

    One that has no address, cannot be reached or does not answer in time says nothing. Blocking:
    up to 10 s for each service.
    """
    secret = secret_of_environment()
    for known in {known.host: known for known in systems if known.url}.values():
        if _refuses(known, secret):
            what = "this one has none" if secret is None else "this one has another"
            raise ConfigError(
                f"host '{known.host}' at {known.url} asks for its shared secret, and {what}: set "
                "PNNLAB_SECRET or PNNLAB_SECRET_FILE to that of the service"
            )


def _refuses(known: KnownSystem, secret: str | None) -> bool:
    """Say whether a service answers a question about its system that it does not know the asker."""
    call = Call()
    timer = threading.Timer(_ANSWER_WITHIN_S, call.break_off)
    timer.start()
    path = f"{API}/systems/{quote(known.name, safe='')}"
    try:
        with closing(RemoteLines(known.url, asking_headers(client_name(), secret))) as lines:
            status, content = lines.request(call, "GET", path)
    except (LineLost, BrokenOff, ConfigError, ValueError):  # an address may be none
        return False
    finally:
        timer.cancel()
    # of a service: at the address of one that is gone there may be anything by now
    return status == 401 and _UNAUTHORISED in content
