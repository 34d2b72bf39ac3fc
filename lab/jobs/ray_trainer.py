"""A trainer process on a Ray cluster: a task that connects to the service and works for it."""

import os
from collections.abc import Mapping

from lab.jobs.far_line import connected
from lab.ray_cluster import refuse_other_software
from lab.secret import FILE, PLAIN


def be_trainer(host: str, port: int, key: bytes, expected: Mapping[str, str]) -> None:
    """Work for the service that listens there, in a process that does nothing else.

    expected: its software. The first word on the line is the secret that it shares with those who
    measure for it. Raises ConfigError (other software here), ConnectionError (no way to it).
    """
    refuse_other_software(expected)
    line = connected(host, port, key).connection
    secret: str | None = line.recv()
    if secret is not None:
        os.environ.pop(FILE, None)
        os.environ[PLAIN] = secret
    from lab.jobs.pipe_desk import work_at  # torch

    work_at(line)
