"""What the reference lists is what the code has."""

import inspect
import json
import re
from collections.abc import Callable
from dataclasses import MISSING, fields
from typing import Any
from unittest.mock import MagicMock

import pytest
import typer
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

import lab.bench_config
import lab.jobs.runner
from documentation import OPENAPI, REFERENCE, ROOT, TEXT, table
from drivers.circuits.mcc import MccUsb1208HS
from drivers.circuits.redpitaya import RedPitayaDAQ
from drivers.mock.faults import Fault, FaultOrder, PlantFault, WireFault
from drivers.mock.physics.optics import OpticalPlant
from drivers.mock.rig import optical_rig
from drivers.mock.serve import admin as serve_admin
from drivers.mock.serve.admin import Admin
from drivers.plates.audio import AudioPlate
from drivers.plates.daq_plate import open_daq_plate
from drivers.row_key import RowKey
from drivers.shapers.slm import SLMShaper
from drivers.shapers.waveshaper import WaveShaperA
from drivers.spectrometers.ocean import OceanSpectrometer
from drivers.spectrometers.yokogawa import YokogawaAQ6370
from lab.bench_config import BenchConfig, load_bench
from lab.calibration import CalibrationResult
from lab.client import Client
from lab.comparison.plan import Outcome, plan_comparison
from lab.comparison.summary import summarise
from lab.config import CONTROLS, TrainConfig
from lab.datasets.own import DatasetInfo
from lab.jobs.configs import CalibrateConfig, CompareConfig, EvaluateConfig
from lab.jobs.dry_run import DryRun
from lab.jobs.records import FitConfig, JobEstimate
from lab.jobs.schedules.records import ScheduleConfig, ScheduleRecord
from lab.measurement import Measurement
from lab.network_config import (
    BrightnessFree,
    Linear,
    Permute,
    Repeat,
    Rescale,
    Series,
    Skip,
    Standardise,
    Windows,
)
from lab.problems import PREFIX, problem_type
from lab.provenance import bench_record, provenance
from lab.recording.recorder import RecordedRows
from lab.retest import EvaluateResult
from lab.scheduling.reservations import Reservation
from lab.scheduling.status import QueuedPass, SystemStatus
from lab.train_result import EpochMetric, TrainResult
from server.cli import app
from server.errors import STATUS, status_problem
from server.views import PassOptions


def settings(driver: Callable[..., object]) -> dict[str, Any]:
    """Return a driver's settings as the bench file may give them, with their defaults."""
    others = {"self", "client", "adapter", "name", "expect_idn", "settling_time_s", "kwargs"}
    others |= {"board", "display", "interface", "link", "timeout_s"}
    limits = {"attenuation", "phase", "drive"}
    parameters = inspect.signature(driver).parameters
    return {key: p.default for key, p in parameters.items() if key not in others | limits}


STAGES = (Repeat, Series, Linear, Rescale, BrightnessFree, Standardise, Skip, Permute, Windows)


def defaults(model: type[BaseModel], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, field in model.model_fields.items():
        if isinstance(field.default, tuple):
            found[prefix + key] = [kind(stage) for stage in field.default]
        elif isinstance(field.default, STAGES):
            found[prefix + key] = kind(field.default)
        elif isinstance(field.default, BaseModel):
            found |= defaults(type(field.default), f"{prefix}{key}.")
        else:
            found[prefix + key] = field.default
    return found


def kind(stage: BaseModel | None) -> dict[str, str] | None:
    return None if stage is None else {"kind": type(stage).model_fields["kind"].default}


def without_tables(keys: dict[str, Any]) -> dict[str, Any]:
    """Drop the keys of tables that the reference lists by themselves."""
    return {key: default for key, default in keys.items() if "." not in key}


def as_shown(default: Any) -> str:
    if default in (PydanticUndefined, inspect.Parameter.empty):
        return "required"
    return "none" if default is None else f"`{json.dumps(default)}`"


@pytest.mark.parametrize(
    ("heading", "expected"),
    [
        ("The file", {**without_tables(defaults(BenchConfig)), "scheduler": None}),
        ("[scheduler]", defaults(lab.bench_config.SchedulerConfig)),
        ("[interlock]", defaults(lab.bench_config.InterlockConfig)),
        ("[rigs.NAME]", defaults(lab.bench_config.RigConfig)),
        ("[instruments.NAME]", defaults(lab.bench_config.InstrumentConfig)),
        ("[systems.NAME]", defaults(lab.bench_config.SystemConfig)),
        ("Training config", defaults(TrainConfig)),
        ("Twin config", defaults(FitConfig)),
        ("Calibration config", defaults(CalibrateConfig)),
        ("Evaluation config", defaults(EvaluateConfig)),
        ("Comparison config", defaults(CompareConfig)),
        ("Schedule config", defaults(ScheduleConfig)),
        ("WaveShaperA", settings(WaveShaperA)),
        ("YokogawaAQ6370", settings(YokogawaAQ6370)),
        ("AudioPlate", settings(AudioPlate)),
        ("DaqPlate", settings(open_daq_plate)),
        ("Options of a pass", defaults(PassOptions)),
        ("MccUsb1208HS", settings(MccUsb1208HS)),
        ("OceanSpectrometer", settings(OceanSpectrometer)),
        ("RedPitayaDAQ", settings(RedPitayaDAQ)),
        ("SLMShaper", settings(SLMShaper)),
    ],
)
def test_every_key_is_listed_with_its_default(heading: str, expected: dict[str, Any]) -> None:
    shown = {key: cells[0] for key, cells in table(heading).items()}
    assert shown == {key: as_shown(default) for key, default in expected.items()}


def test_every_stage_is_listed_with_its_keys() -> None:
    expected = {}
    for stage in STAGES:
        for key, field in stage.model_fields.items():
            name = field.default if key == "kind" else f"{stage.model_fields['kind'].default}.{key}"
            expected[name] = "" if key == "kind" else as_shown(field.default)
    assert {key: cells[0] for key, cells in table("Stages").items()} == expected


def test_every_control_is_listed() -> None:
    assert tuple(table("Controls")) == CONTROLS


def test_a_comparisons_json_is_listed() -> None:
    result = {f.name: None for f in fields(TrainResult)}
    result |= {"method": "pat", "test_accuracy": 0.9, "twin_accuracy": 0.9, "spread_accuracy": 0.9}
    result |= {"baseline": 0.9, "confusion": [[1]], "checks": [{"accuracy": 0.9, "rows": 1}]}
    result |= {"audits": [1], "ledger": {"twin": 1}}
    result |= {"rows": 1, "seconds": 1.0, "instrument_hours": 1.0}
    plan = plan_comparison(methods=("pat",))
    config = TrainConfig().model_dump()
    summary = summarise(plan, Outcome({"rows": 300}, [result], config, None))
    assert list(table("A comparison")) == list(summary)
    method = {
        key for key in summary["methods"]["pat"] if not re.search(r"\w_(mean|per_seed)$", key)
    }
    lists = {"ledger_per_seed", "checks_per_seed", "audits_per_seed"}
    assert set(table("A method of a comparison")) == method | lists


@pytest.mark.parametrize(
    ("heading", "kind"),
    [
        ("Measurement", Measurement),
        ("Data set", DatasetInfo),
        ("System status", SystemStatus),
        ("Queue", QueuedPass),
        ("Reservation", Reservation),
        ("Estimate of a job", JobEstimate),
        ("Dry run", DryRun),
        ("Schedule", ScheduleRecord),
        ("Recorded rows", RecordedRows),
    ],
)
def test_every_member_of_an_answer_is_listed(heading: str, kind: type) -> None:
    assert set(table(heading)) == {field.name for field in fields(kind)}


def test_everything_that_is_kept_of_a_jobs_provenance_is_listed() -> None:
    kept = provenance(bench_record(load_bench(ROOT / "bench.toml")), TrainConfig())
    assert set(table("Provenance")) == {*kept, "attempts"}


def test_every_fault_is_listed() -> None:
    order = {
        f.name: "required" if f.default is MISSING else as_shown(f.default)
        for f in fields(FaultOrder)
    }
    assert {key: cells[0] for key, cells in table("Faults").items()} == order
    assert list(table("Kinds of fault")) == [*Fault, *WireFault, *PlantFault]


def test_every_request_of_the_admin_interface_is_listed() -> None:
    admin = Admin({"RIG": optical_rig(OpticalPlant())})
    answers = {request: admin.handle(*request.split(), b"") for request in table("Admin interface")}
    assert all(status != 404 for status, *_ in answers.values()), answers
    told = re.findall(r"^ {4}([A-Z]+) +(/\S+)", serve_admin.__doc__, re.MULTILINE)
    assert [" ".join(request) for request in told] == list(answers)


def leaves(group: Any, before: str = "") -> dict[str, Any]:
    """Return what can be run of a group by its words, the commands of its groups among it."""
    found: dict[str, Any] = {}
    for name, command in group.commands.items():
        words = before + name
        below = hasattr(command, "commands")
        if not below or command.invoke_without_command:
            found[words] = command
        if below:
            found |= leaves(command, words + " ")
    return found


CLI = leaves(typer.main.get_command(app))


@pytest.mark.parametrize("name", CLI)
def test_every_option_is_listed_with_its_default(name: str) -> None:
    (heading,) = re.findall(rf"^### (pnnlab {name}(?: [A-Z[].*)?)$", REFERENCE, re.MULTILINE)
    options = {p.opts[0]: p for p in CLI[name].params if p.param_type_name == "option"}
    shown = table(heading)
    assert shown.keys() == options.keys()
    for option, (default, *_) in shown.items():
        if name != "submit" and options[option].default not in (None, ""):
            assert default.strip("`").replace("off", "False") == str(options[option].default)


def test_every_limit_is_listed() -> None:
    wire: Any = MagicMock()  # nothing is asked of it
    shaper = WaveShaperA(wire)
    drivers = {
        "MccUsb1208HS": [MccUsb1208HS(wire).drive],
        "RedPitayaDAQ": [RedPitayaDAQ(wire).drive],
        "AudioPlate": [AudioPlate(wire).drive],
        "DaqPlate": [open_daq_plate(wire).drive],
        "WaveShaperA": [shaper.attenuation, shaper.phase],
    }
    keys: set[str] = set()
    for heading, specs in drivers.items():
        (section,) = re.findall(
            rf"^### {heading}\n(.*?)(?=^##)", REFERENCE, re.MULTILINE | re.DOTALL
        )
        (limits,) = re.findall(r"^Limits: (.*)$", section, re.MULTILINE)
        for spec in specs:
            names = [limit.name for limit in spec.row_limits]
            peak = ["peak"] if spec.name == "drive" else []
            shown = re.search(rf"`{spec.name}` \(.*?; ((?:`\w+`(?:, )?)+)\)", limits)
            assert shown is not None
            assert shown[1].replace("`", "").split(", ") == ["low", "high", *peak, *names]
            keys |= {"low", "high", *peak, *names}
    assert set(table("[instruments.NAME.limits]")) == keys


def test_no_other_command_is_named() -> None:
    for text in TEXT.values():
        assert set(re.findall(r"`pnnlab ([a-z]+)", text)) <= {words.split()[0] for words in CLI}


def test_every_route_is_listed_with_its_statuses() -> None:
    routes = {
        f"{method.upper()} {path}": sorted(set(operation["responses"]) - {"422"})
        for path, operations in OPENAPI["paths"].items()
        for method, operation in operations.items()
    }
    shown = {
        route: sorted([*done.split(), *failed.split()])
        for route, (done, failed, _) in table("REST").items()
    }
    assert shown == routes


def test_every_problem_is_listed_with_its_status() -> None:
    known = {problem_type(kind).removeprefix(PREFIX): status for kind, status in STATUS.items()}
    shown = {name: int(status) for name, (status, _) in table("Problems").items()}
    assert shown == {**known, "invalid-request": 422, "internal-error": 500}


def test_refusals_of_any_request_are_listed_under_their_own_names() -> None:
    (rows,) = re.findall(r"Some may answer any request:\n\n((?:\|.*\n)+)", REFERENCE)
    listed = re.findall(r"^\| `([\w-]+)` \| (\d+) \|", rows, re.MULTILINE)
    assert sorted(status for _, status in listed) == ["400", "401", "403", "413", "421"]
    for name, status in listed:
        body = json.loads(status_problem(int(status), "").body)
        assert body["type"] == PREFIX + name


def test_every_method_of_the_client_is_listed() -> None:
    methods = set()
    for name, method in inspect.getmembers(Client, inspect.isfunction):
        if not name.startswith("_"):
            signature = inspect.signature(method)
            _, *rest = signature.parameters.values()
            plain = [parameter.replace(annotation=parameter.empty) for parameter in rest]
            methods.add(f"{name}{inspect.Signature(plain)}")
    assert table("Python client").keys() == methods


def test_every_variable_is_listed() -> None:
    sources = [f for p in ("lab", "drivers", "server", "twins") for f in (ROOT / p).rglob("*.py")]
    read = {name for f in sources for name in re.findall(r"\"(PNNLAB_[A-Z_]+)\"", f.read_text())}
    assert table("Environment variables").keys() == read


def test_results_and_row_keys_are_listed() -> None:
    kept = [f.name for f in fields(TrainResult) if not f.name.endswith("_state")]
    metrics = re.search(r"An epoch's metric:\n\n((?:\|.*\n)+)", REFERENCE)[1]
    listed = re.findall(r"^\| `(\w+)`", metrics, re.MULTILINE)
    assert list(table("Results")) == [*kept, "twin"]
    calibration = [f.name for f in fields(CalibrationResult)]
    assert list(table("A calibration")) == [*calibration, "name", "applied"]
    assert list(table("An evaluation")) == [f.name for f in fields(EvaluateResult)]
    assert listed == ["kind", *(f.name for f in fields(EpochMetric))]
    assert list(table("Row keys")) == [f.name for f in fields(RowKey)]
