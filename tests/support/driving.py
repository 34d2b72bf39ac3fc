"""Processes that drive a bench and come to all kinds of ends; forked, so that they start fast."""

import multiprocessing
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Literal

import numpy as np

from lab.bench import Bench, open_bench
from lab.bench_config import BenchConfig
from lab.client import Client
from lab.errors import NotPermitted
from server.app import create_app
from server.lifespan import SLOW_IMPORTS
from server.serve import serve

Point = Literal["before start", "idle", "in a pass", "exception", "end"]
LIMIT_S = 60.0


def drive(bench: BenchConfig, point: Point, log: Path, told: Connection) -> None:
    """Drive up to a point, say so, and stay there until something from outside happens."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with open_bench(bench, start=point != "before start", guard_log=log) as opened:
            if point != "before start":
                _row(opened)
            told.send("there")
            match point:
                case "exception":
                    raise RuntimeError("of the user's program")
                case "in a pass":
                    while True:
                        _row(opened)
                case "idle" | "before start":
                    signal.pause()
    except (KeyboardInterrupt, RuntimeError):
        pass
    except NotPermitted as error:
        told.send(str(error))


def _row(bench: Bench) -> None:
    name, system = next(iter(bench.systems.items()))
    specs = (system.description.x, system.description.theta)
    x, theta = (s.to_physical(np.full((1, *s.shape), 0.75)) for s in specs)
    y = system.transform(x, theta).y
    if name == "lamp" and y.tolist() != [[22.5, 0.5]]:
        raise ValueError(f"measured {y}: driven against the guard")


@contextmanager
def driving(
    bench: BenchConfig, point: Point, log: Path
) -> Iterator[tuple[BaseProcess, Connection]]:
    """Yield a process that has come to the point, and what hears from it; end it if it is left."""
    with _process(drive, (bench, point, log)) as (process, heard):
        assert heard.recv() == "there"
        yield process, heard


@contextmanager
def _process(
    target: Callable[..., None], arguments: tuple[Any, ...]
) -> Iterator[tuple[BaseProcess, Connection]]:
    """Yield a process that has said something, and what hears from it."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["driving", *SLOW_IMPORTS])
    heard, told = context.Pipe(duplex=False)
    process = context.Process(target=target, args=(*arguments, told))
    process.start()
    told.close()
    try:
        assert heard.poll(LIMIT_S), "it never came to the point"
        yield process, heard
    finally:
        process.kill()
        process.join(LIMIT_S)
        process.close()
        heard.close()


def serve_bench(bench: BenchConfig, folder: Path, port: int, told: Connection) -> None:
    """Serve a bench as `pnnlab serve` does; tell the address."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    serve(create_app(bench, data_dir=folder), "127.0.0.1", port, told.send)


@contextmanager
def serving(
    bench: BenchConfig, folder: Path, port: int = 0
) -> Iterator[tuple[BaseProcess, Client]]:
    """Yield a service's process and a client of it; end it if it is left."""
    with (
        _process(serve_bench, (bench, folder, port)) as (process, heard),
        Client(heard.recv(), name="ann") as client,
    ):
        yield process, client
