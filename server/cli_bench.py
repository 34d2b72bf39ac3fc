"""The commands that open a bench on this machine, serve and check, and worker, which needs none.

What they need (torch, drivers) is imported when they run, so that the other commands start fast.
"""

import json
import logging
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from lab.bench_config import NO_BENCH, BenchConfig, load_bench
from lab.errors import ConfigError
from lab.loopback import is_loopback
from lab.secret import secret_of_environment
from server.interrupts import ended_by_signals

DEFAULT_BENCH = Path("bench.toml")

BenchFile = Annotated[
    Path | None, typer.Option("--bench", help="Bench file.  [default: ./bench.toml]")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


def _shared(url: str | None) -> str | None:
    """Return the URL of a database that others share; raise BadParameter for a file."""
    if url is not None and url.startswith("sqlite"):
        raise typer.BadParameter(
            "it is a PostgreSQL that several machines share; without it jobs are kept in a file of "
            "SQLite in the folder --data"
        )
    return url


Database = Annotated[
    str | None,
    typer.Option(
        envvar="PNNLAB_DATABASE_URL",
        callback=_shared,
        help="A PostgreSQL that several machines share, postgresql://...",
    ),
]
Ray = Annotated[
    str | None,
    typer.Option(
        help="Let jobs compute on this Ray cluster, --workers at once: auto, local or HOST:PORT."
    ),
]
HostName = Annotated[
    str | None,
    typer.Option(help="Lasting name among those that share the database (the machine's)."),
]


def serve(
    bench: BenchFile = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: a free one.")] = 8000,
    data: Annotated[Path, typer.Option(help="Folder of database, checkpoints and rows.")] = Path(
        "pnnlab-data"
    ),
    workers: Annotated[int, typer.Option(min=1, max=64, help="Jobs that run at once.")] = 2,
    rows_budget: Annotated[
        float, typer.Option(min=0, help="GB of disk for measured rows; 0: none are recorded.")
    ] = 10.0,
    database: Database = None,
    host_name: HostName = None,
    advertise: Annotated[
        str | None, typer.Option(help="Where the others that share the database reach this one.")
    ] = None,
    own_jobs: Annotated[
        bool, typer.Option("--own-jobs", help="Leave fits and parts of comparisons to workers.")
    ] = False,
    no_bench: Annotated[
        bool, typer.Option("--no-bench", help="Only take requests; benches are elsewhere.")
    ] = False,
    ray: Ray = None,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Let other machines drive it without a secret.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Serve a bench over HTTP until SIGINT or SIGTERM; the instruments end in their safe state."""
    path = NO_BENCH if no_bench else find_bench(bench)
    config = load_bench(path) if isinstance(path, Path) else path
    if no_bench and database is None:
        raise typer.BadParameter("--no-bench: needs the --database of those that have one")
    secret = secret_of_environment()
    if secret is None and not is_loopback(host):
        _refuse_strangers(host, insecure)
    from server.app import create_app
    from server.serve import serve as run

    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(message)s")

    def ready(url: str) -> None:
        line = json.dumps({"url": url, "bench": config.name})
        # for a program that reads this through a pipe, hence flushed (echo does)
        typer.echo(line if as_json else f"pnnlab: bench {config.name} ready at {url}")

    app = create_app(
        path,
        data_dir=data,
        database_url=database,
        host_name=host_name,
        own_only=own_jobs,
        workers=workers,
        rows_budget_gb=rows_budget,
        local_only=is_loopback(host),
        secret=secret,
        ray=ray,
    )
    run(app, host, port, ready, advertise)


def worker(
    database: Database = None,
    host_name: HostName = None,
    data: Annotated[Path, typer.Option(help="Folder of its own.")] = Path("pnnlab-worker"),
    workers: Annotated[int, typer.Option(min=1, max=64, help="Jobs that run at once.")] = 2,
    ray: Ray = None,
) -> None:
    """Work on fits and parts of comparisons of every service that shares a database.

    Rows are measured where the instruments are; PNNLAB_SECRET has to be that service's.
    """
    if database is None:
        raise typer.BadParameter("--database (or PNNLAB_DATABASE_URL) is needed")
    secret_of_environment()  # one that cannot be used would end every job that is taken
    from server.work import work

    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(message)s")
    work(
        data,
        database,
        host_name=host_name,
        workers=workers,
        ray=ray,
        on_ready=lambda: typer.echo("pnnlab: worker ready"),
    )


def _refuse_strangers(host: str, insecure: bool) -> None:
    """Raise ConfigError for an address that others reach without a secret, or only warn."""
    reachable = (
        f"{host} is reachable from other machines, and without PNNLAB_SECRET the service asks "
        "nobody who they are: whoever reaches it can drive the instruments"
    )
    if not insecure:
        raise ConfigError(f"{reachable}; set it, or say --insecure")
    typer.echo(f"pnnlab: warning: {reachable}", err=True)


def check(
    bench: BenchFile = None,
    record: Annotated[
        Path | None, typer.Option(help="Write every exchange with the instruments into this file.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print every command instead of sending it.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Bring the bench up and judge what it measures; exit code 1 if anything fails.

    Identities, a reference and a dark row, noise, loopback delay, row time, safe state.
    """
    path = find_bench(bench)
    if dry_run and record is not None:
        raise typer.BadParameter("--record: a dry run has no session to record")
    if dry_run:
        _dry_run(path, as_json)
        return
    from server.check import check_bench, line

    config: Path | BenchConfig = path
    if record is not None:
        config = load_bench(path).model_copy(update={"record": str(record)})
    results = []
    with ended_by_signals(), closing(check_bench(config)) as checks:
        for result in checks:
            results.append(result)
            if not as_json:
                typer.echo(line(result))  # at once: a real bench takes its time
    ok = all(result.ok for result in results)
    if as_json:
        content = [asdict(result) for result in results]
        typer.echo(json.dumps({"bench": str(path), "ok": ok, "checks": content}))
    if not ok:
        raise typer.Exit(1)


def _dry_run(path: Path, as_json: bool) -> None:
    from server.dry_run import BEGIN, broken, dry_run, lines

    with ended_by_signals(), closing(dry_run(path)) as steps:
        done = list(steps)
    ok = not any(broken(check) for check, _ in done)
    commands = [
        {"check": check.check, "system": check.system, **asdict(command)}
        for check, sent in done
        for command in sent
    ]
    if as_json:
        content = {"bench": str(path), "dry_run": True, "ok": ok, "commands": commands}
        typer.echo(json.dumps(content))
    else:
        shown = [text for check, sent in done for text in lines(check, sent)]
        typer.echo("\n".join([BEGIN, *shown, f"dry run: {len(commands)} commands, none sent"]))
    if not ok:
        raise typer.Exit(1)


def find_bench(given: Path | None, system: str | None = None) -> Path:
    """Return the bench file to use; raise ConfigError where none was given and none is here.

    system: without a file, ./bench-<system>.toml is preferred to ./bench.toml where it is there.
    """
    if given is not None:
        return given
    own = DEFAULT_BENCH.with_name(f"bench-{system}.toml")
    if system is not None and own.is_file():
        return own
    if not DEFAULT_BENCH.is_file():
        raise ConfigError(
            f"no bench file: there is no {DEFAULT_BENCH} in this folder; name one with --bench"
        )
    return DEFAULT_BENCH
