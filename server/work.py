"""Work on jobs without a bench, beside the services that have one, until a signal comes."""

import asyncio
import signal
from collections.abc import Callable
from pathlib import Path

from lab.bench_config import NO_BENCH
from server.lifespan import open_lab


def work(
    data: Path,
    database_url: str,
    *,
    host_name: str | None,
    workers: int,
    ray: str | None = None,
    on_ready: Callable[[], None],
) -> None:
    """Work until SIGTERM, SIGINT or SIGHUP; what is unfinished then goes on elsewhere.

    ray: address of the cluster on which they compute, if not here. on_ready() is called when jobs
    are taken. Raises ConfigError for a folder, database, name or cluster that cannot be used, and
    for a secret that a service which has instruments refuses.
    """

    async def until_stopped() -> None:
        stopped = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            loop.add_signal_handler(number, stopped.set)
        async with open_lab(
            NO_BENCH,
            data,
            database_url=database_url,
            host_name=host_name,
            workers=workers,
            ray=ray,
        ):
            on_ready()
            await stopped.wait()

    asyncio.run(until_stopped())
