"""The command that serves the simulated instruments of a bench on sockets: mock."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lab.bench_config import BenchConfig, load_bench
from lab.errors import ConfigError
from lab.loopback import is_loopback
from lab.rigs import on_sockets
from server.bench_file import write_bench
from server.cli_bench import AsJson, BenchFile, find_bench
from server.config_files import read_config

if TYPE_CHECKING:  # instruments are imported when the command runs
    from drivers.mock.serve.sockets import Served
    from drivers.transport import Rig


def mock(
    bench: BenchFile = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[
        int,
        typer.Option(
            min=0,
            max=65_000,
            help="Of the admin interface; the instruments take the ones after it. 0: free ones.",
        ),
    ] = 0,
    faults: Annotated[
        Path | None, typer.Option(help="TOML file of faults that are armed from the start.")
    ] = None,
    write: Annotated[
        Path | None, typer.Option(help="Write the bench file of a lab that connects here.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Serve the simulated instruments of a bench on sockets until SIGINT or SIGTERM."""
    path = find_bench(bench)
    config = load_bench(path)
    from drivers.mock.serve.sockets import serve

    rigs = _open_rigs(path, config)
    if faults is not None:
        _arm(rigs, faults)
    if not is_loopback(host):
        typer.echo(
            f"pnnlab: warning: {host} is reachable from other machines, and the simulated "
            "instruments ask nobody who they are",
            err=True,
        )

    def ready(served: "Served") -> None:
        if write is not None:
            write_bench(write, on_sockets(config, served.admin, served.addresses))
        # for a program that reads this through a pipe, hence flushed (echo does)
        typer.echo(_as_json(config, served) if as_json else _as_lines(config, served))

    addresses = list(_named(config).values())
    try:
        serve(rigs, addresses, host=host, port=port, on_ready=ready)
    except OSError as error:
        raise ConfigError(f"cannot listen on {host}, port {port or 'any'}: {error}") from error
    except ValueError as error:
        raise ConfigError(f"{path}: {error}") from error


def _open_rigs(path: Path, config: BenchConfig) -> "dict[str, Rig]":
    """Build the rigs of a bench; raise ConfigError where there is nothing to serve."""
    from drivers.transport import open_rigs

    if not config.rigs:
        raise ConfigError(f"{path}: there is nothing to serve: no [rigs], no simulated instrument")
    for name, rig in config.rigs.items():
        if rig.admin is not None:
            raise ConfigError(f"{path}: rigs.{name}.admin: this rig is served at {rig.admin}")
    times_s = {part.address: part.row_time_s for part in config.instruments.values()}
    try:
        return open_rigs(config.rigs, times_s)
    except (ValueError, TypeError) as error:
        raise ConfigError(f"{path}: {error}") from error


def _arm(rigs: "dict[str, Rig]", path: Path) -> None:
    """Arm the faults of a file: `[[faults]]` with `rig` and what the fault says."""
    from drivers.mock.faults import FaultOrder

    found: Any = read_config(path).get("faults")
    if not isinstance(found, list):
        raise ConfigError(f"{path}: a list [[faults]] is needed")
    for number, entry in enumerate(found, 1):
        try:
            rig = entry.pop("rig", next(iter(rigs)) if len(rigs) == 1 else None)
            if rig not in rigs:
                raise ValueError(f"no rig '{rig}' (there are: {', '.join(rigs)})")
            rigs[rig].arm(FaultOrder.read(entry))
        except (ValueError, AttributeError) as error:
            raise ConfigError(f"{path}: faults, number {number}: {error}") from error


def _named(config: BenchConfig) -> dict[str, str]:
    """Return the `mock://` addresses of a bench by who has them, the interlock last."""
    named = {name: part.address for name, part in config.instruments.items()}
    if config.interlock is not None:
        named.setdefault("interlock", config.interlock.address)
    return {name: address for name, address in named.items() if address.startswith("mock://")}


def _as_json(config: BenchConfig, served: "Served") -> str:
    found = {name: served.addresses[address] for name, address in _named(config).items()}
    return json.dumps({"bench": config.name, "admin": served.admin, "instruments": found})


def _as_lines(config: BenchConfig, served: "Served") -> str:
    """Return one line for each instrument, the admin interface first."""
    lines = {"admin": served.admin}
    for name, address in _named(config).items():
        lines[name] = served.addresses[address] or f"{address} (in memory only: no network wire)"
    width = max(map(len, lines))
    return "\n".join(f"{name:{width}}  {address}" for name, address in lines.items())
