"""Connect to a Ray cluster, and see that its nodes compute with the same software.

Needs the extra `ray`.
"""

import os
import platform
import re
import signal
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import metadata
from typing import Any

from lab.errors import ConfigError

LOCAL = "local"
_COMPUTING = ("pnnlab", "numba", "numpy", "scikit-learn", "torch")
_ADDRESS = re.compile(rf"auto|{LOCAL}|[^\s:/]+:\d{{1,5}}")
_KNOCK_S = 5.0


@contextmanager
def open_cluster(address: str) -> Iterator[Any]:
    """Connect to a cluster: `auto`, HOST:PORT, or `local`, which starts one on this machine.

    Gives Ray's module. Raises ConfigError where the extra is missing, or where there is no such
    cluster. Ray is told not to report usage.
    """
    check_address(address)
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    try:
        import ray
    except ImportError as error:
        raise ConfigError(f'ray: needs `pip install "pnnlab[ray]"` ({error})') from error
    _knock(address)
    own = {"include_dashboard": False} if address == LOCAL else {}
    try:
        with _own_sigterm():
            ray.init(address, log_to_driver=False, logging_level="error", **own)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise ConfigError(f"ray: cannot connect to '{address}': {error}") from error
    try:
        yield ray
    finally:
        ray.shutdown()


def check_address(address: str) -> None:
    """Raise ConfigError for what cannot be a cluster's address."""
    if not _ADDRESS.fullmatch(address):
        raise ConfigError(f"ray: '{address}' is neither auto, nor local, nor HOST:PORT")


def software() -> dict[str, str]:
    """Return the versions of what computes; Ray itself compares Python's and its own."""
    return {name: _version(name) for name in _COMPUTING}


def refuse_other_software(expected: Mapping[str, str]) -> None:
    """Raise ConfigError, with this node's name, where other software would give other numbers."""
    other = [f"{k} {v}, not {expected[k]}" for k, v in software().items() if v != expected[k]]
    if other:
        raise ConfigError(f"ray: other software on {platform.node()}: {'; '.join(other)}")


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "none"


def _knock(address: str) -> None:
    """Raise ConfigError where nobody listens, which Ray itself would find out after minutes."""
    host, _, port = address.rpartition(":")
    if not host:
        return
    try:
        socket.create_connection((host, int(port)), _KNOCK_S).close()
    except (OSError, OverflowError) as error:
        raise ConfigError(f"ray: no cluster at '{address}': {error}") from error


@contextmanager
def _own_sigterm() -> Iterator[None]:
    """Keep this process's answer to SIGTERM, which Ray replaces by its own."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)
