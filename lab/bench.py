"""Open everything that a bench file names, and leave it in its safe state at the end.

with open_bench("bench.toml") as bench:
measure = bench.measure("optics")
layer = PhysicalLayer(torch.rand(50), measure, bench.new_twin("optics"))
"""

import os
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from drivers.errors import DriverError, LimitError, parts, reason
from drivers.instrument import Instrument
from drivers.transport import Rig, open_rigs
from drivers.wires.recording import Recorder
from drivers.wires.tap import Tap, TappedRigs
from lab.bench_config import BenchConfig, SystemConfig, read_bench
from lab.config import TwinKind
from lab.errors import ConfigError, LabError, UnknownName
from lab.guarding import BenchGuard, launch_guard
from lab.measure import DeviceMeasure, DirectRun
from lab.openers import imported_for, open_instrument
from lab.protection import UNPROTECTED, Protection, enter_interlock, protected_by
from lab.safe_state import in_parallel
from lab.scheduling.scheduler import HardwareScheduler
from lab.systems import SYSTEMS
from lab.systems.base import PhysicalSystem, shut_down_systems
from lab.twins import new_twin
from twins.base import DigitalTwin

T = TypeVar("T")


class Bench:
    """The opened bench: its systems by name, and the simulated rigs where there are any.

    text: of the bench file, None where it was not opened from one.
    """

    def __init__(
        self,
        config: BenchConfig,
        systems: dict[str, PhysicalSystem],
        rigs: Mapping[str, Rig],
        protection: Protection = UNPROTECTED,
        text: str | None = None,
    ) -> None:
        self.config = config
        self.text = text
        self.digest = config.measurement_digest()
        self.systems = systems
        self.rigs = rigs
        self.protection = protection

    def system(self, name: str) -> PhysicalSystem:
        """Return a system; raise UnknownName with the names there are."""
        if name not in self.systems:
            raise UnknownName(f"no system '{name}' (there are: {', '.join(self.systems)})")
        return self.systems[name]

    def measure(self, name: str, *, stream: int = 0, first_row: int = 0) -> DeviceMeasure:
        """Return the callable that measures rows of a system directly, in this thread."""
        system = self.system(name)
        return DeviceMeasure(
            system.description, DirectRun(system), stream=stream, first_row=first_row
        )

    def new_twin(self, name: str, kind: TwinKind = "structured", *, seed: int = 0) -> DigitalTwin:
        """Return an unfitted digital twin of a system; see `lab.twins.new_twin`."""
        family = self.config.systems[name].system
        return new_twin(self.system(name).description, family, kind, seed)

    def scheduler(self, first_shot: Mapping[str, int] | None = None) -> HardwareScheduler:
        """Return a scheduler, not yet entered, of all systems, as the bench file configures it."""
        return HardwareScheduler(
            self.systems,
            self.config.scheduler,
            first_shot=first_shot,
            shot_period_s={n: part.shot_period_s for n, part in self.config.systems.items()},
            protection=self.protection,
        )

    def plant(self, name: str) -> object | None:
        """Return the simulated physics behind a system, None on a real bench."""
        rig = self.rig(name)
        return None if rig is None else rig.plant

    def rig(self, name: str) -> Rig | None:
        """Return the simulated rig of a system, None on a real bench or one on sockets."""
        rig = self.rig_name(name)
        return None if rig is None else self.rigs[rig]

    def rig_name(self, name: str) -> str | None:
        """Return which simulated rig in memory a system stands on, None on a real bench."""
        for instrument in self.config.systems[name].instruments.values():
            rig = self.config.instruments[instrument].rig
            if rig is not None and self.config.rigs[rig].admin is None:
                return rig
        return None


@contextmanager
def open_bench(
    bench: Path | str | BenchConfig,
    *,
    start: bool = True,
    tap: Callable[[str], Tap] | None = None,
    guard_log: Path | None = None,
) -> Iterator[Bench]:
    """Open every instrument of a bench file; shut down and close them in any case at the end.

    start: identify the instruments and bring them, settings applied, to their safe state now
    (otherwise whoever uses the systems does). tap: called with an instrument's name, returns who
    listens on its wire (`drivers.wires.tap`); the bench file's `record` is such a one. Where
    instruments are not simulated in memory, a guard process watches over this one, and reports to
    guard_log (default: `lab.guarding`) if it has to act.

    Raises ConfigError that names file, key and reason, the DriverError of an instrument that does
    not answer, or NotPermitted while the interlock is open or without a guard.
    """
    config, text = (bench, None) if isinstance(bench, BenchConfig) else read_bench(bench)
    source = "bench" if isinstance(bench, BenchConfig) else str(bench)
    times_s = {part.address: part.row_time_s for part in config.instruments.values()}
    with ExitStack() as stack:
        rigs = _checked(source, "rigs", lambda: open_rigs(config.rigs, times_s))
        for rig in rigs.values():
            stack.callback(rig.close)
        if tap is None and config.record is not None:
            tap = stack.enter_context(_open_recorder(source, config, config.record)).tap
        instruments: dict[str, Instrument] = {}
        guard = launch_guard(config, guard_log)  # it starts while the instruments are opened
        stack.push(partial(_close, instruments, guard))
        for name in config.instruments:
            key = f"instruments.{name}"
            heard = rigs if tap is None else TappedRigs(rigs, tap(name))
            open_it = partial(open_instrument, config, name, heard)
            instruments[name] = _checked(source, key, open_it)
        watched = partial(enter_interlock, stack, config, rigs)
        protection = protected_by(guard, _checked(source, "interlock", watched))
        systems = {
            name: _checked(
                source,
                f"systems.{name}",
                partial(_build_system, config, name, part, instruments, rigs),
            )
            for name, part in config.systems.items()
        }
        for system in systems.values():
            system.permits = protection.permits
            # also in the middle of a long operation
            protection.listen(system.abort)
        if start:
            _start(stack, systems.values(), protection)
        yield Bench(config, systems, rigs, protection, text)


def _start(stack: ExitStack, systems: Collection[PhysicalSystem], protection: Protection) -> None:
    """Start the systems, and have them made safe when they may not be driven and at the end."""
    # before the instruments close: a system knows what must go dark first
    stack.callback(shut_down_systems, systems)
    for system in systems:
        protection.listen(system.make_safe_soon)
        system.start()


def _close(
    instruments: Mapping[str, Instrument],
    guard: BenchGuard | None,
    _kind: object,
    first: BaseException | None,
    _trace: object,
) -> None:
    """Close all instruments, in parallel; where one cannot be made safe, let the guard try.

    An instrument or a bench file that has ended it before (`first`) remains the error;
    the rest becomes its note.
    """
    try:
        in_parallel([instrument.close for instrument in instruments.values()])
    except BaseException as error:
        if guard is not None:
            guard.call(f"at the end of process {os.getpid()}: {reason(error)}")
        if not isinstance(first, DriverError | LabError):
            raise
        if parts(error) not in reason(first):
            first.add_note(f"safe state not confirmed: {parts(error)}")
    else:
        if guard is not None:
            guard.dismiss()


def _open_recorder(source: str, config: BenchConfig, file: str) -> Recorder:
    try:
        return Recorder(Path(file), config.name)
    except FileExistsError as error:
        raise ConfigError(f"{source}: record: {file} is there already; not overwritten") from error
    except OSError as error:
        raise ConfigError(f"{source}: record: {file}: {error.strerror}") from error


def _checked(source: str, key: str, build: Callable[[], T]) -> T:
    try:
        return build()
    except (LimitError, ValueError, TypeError, UnknownName) as error:
        raise ConfigError(f"{source}: {key}: {error}") from error


def _build_system(
    config: BenchConfig,
    name: str,
    part: SystemConfig,
    instruments: Mapping[str, Instrument],
    rigs: Mapping[str, Rig],
) -> PhysicalSystem:
    build: Any = SYSTEMS.get(part.system) or imported_for("system", part.system, SYSTEMS)
    parts = [config.instruments[i] for i in part.instruments.values()]
    rig = next((part.rig for part in parts if part.rig is not None), None)
    system: PhysicalSystem = build(
        name=name,
        row_time_s=sum(p.row_time_s for p in parts),
        announce=None if rig is None else rigs[rig].announce_rows,
        **{role: instruments[i] for role, i in part.instruments.items()},
    )
    system.narrow(part.limits)
    return system
