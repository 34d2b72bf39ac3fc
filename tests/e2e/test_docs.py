"""What the documentation shows works, and what it lists is what the code has."""

import asyncio
import functools
import inspect
import json
import re
import shlex
import threading
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from pydantic import BaseModel
from pydantic_core import PydanticUndefined
from typer.testing import CliRunner

import lab.config
import lab.jobs.runner
from drivers.errors import InstrumentTimeout
from drivers.row_key import RowKey
from drivers.waveshaper import WaveShaperA
from drivers.yokogawa import YokogawaAQ6370
from lab.bench import open_bench
from lab.client import Client
from lab.comparison.plan import plan_comparison
from lab.config import BenchConfig, TrainConfig, load_bench
from lab.datasets import Dataset
from lab.jobs.records import FitConfig
from lab.problems import PREFIX, problem_type
from lab.trainer import EpochMetric, TrainResult
from server.app import create_app
from server.cli import app
from server.errors import STATUS, status_problem
from server.serve import LabServer, listen, run
from server.views import PassRequest
from twins.fitting import FitSettings

ROOT = Path(__file__).parents[2]
DOCS = sorted((ROOT / "docs").glob("*.md"))
TEXT = {page.name: page.read_text(encoding="utf-8") for page in DOCS}
REFERENCE = TEXT["reference.md"]
OPENAPI = json.loads((ROOT / "server" / "openapi.json").read_text(encoding="utf-8"))
ADDRESS = "http://127.0.0.1:8000"
LIMIT_S = 60.0


def blocks(page: str, language: str, section: str = "") -> list[str]:
    """Return a page's code blocks in a language, those below one heading if it is given."""
    text = TEXT[page]
    if section:
        (text,) = re.findall(rf"^## {section}\n(.*?)(?=^## |\Z)", text, re.DOTALL | re.MULTILINE)
    found = re.findall(rf"^( *)```{language}\n(.*?)^\1```$", text, re.DOTALL | re.MULTILINE)
    return [re.sub(rf"^{indent}", "", code, flags=re.MULTILINE) for indent, code in found]


def table(heading: str) -> dict[str, list[str]]:
    """Return the first table below a heading of the reference: cells by the first one."""
    (text,) = re.findall(
        rf"^##+ {re.escape(heading)}\n(.*?)(?=^##+ |\Z)", REFERENCE, re.DOTALL | re.MULTILINE
    )
    lines = re.search(r"((?:^\|.*\n)+)", text, re.MULTILINE)[1].splitlines()[2:]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert len({row[0] for row in rows}) == len(rows)
    return {row[0].strip("`"): row[1:] for row in rows}


# --- links and code blocks ------------------------------------------------------------------


def anchors(path: Path) -> set[str]:
    headings = re.findall(r"^#+ (.*)", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", [*DOCS, ROOT / "README.md"], ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    for target, anchor in re.findall(r"\]\(([^)#]*)(?:#([^)]*))?\)", page.read_text()):
        if not target.startswith("http"):
            path = page.parent / target if target else page
            assert path.exists(), target
            assert not anchor or anchor in anchors(path), anchor


def test_the_index_lists_every_page() -> None:
    listed = re.findall(r"^- \[.*?\]\((.*?)\): .+\.$", TEXT["index.md"], re.MULTILINE)
    assert sorted([*listed, "index.md"]) == sorted(TEXT)


@pytest.mark.parametrize("page", TEXT)
def test_every_code_block_is_of_a_kind_that_is_tested(page: str) -> None:
    kinds = ("sh", "python", "toml", "json", "text")
    assert len(re.findall("```", TEXT[page])) == 2 * sum(len(blocks(page, kind)) for kind in kinds)


COMMANDS = [
    line for page in TEXT for block in blocks(page, "sh") for line in block.splitlines() if line
]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_exists(command: str) -> None:
    variables = re.match(r"(?:[A-Z_]+=\S+ )*", command)[0]
    assert set(re.findall(r"([A-Z_]+)=", variables)) <= set(table("Environment variables"))
    match shlex.split(command.removeprefix(variables)):
        case ["pnnlab", *words]:
            parse(words)
        case ["make", target]:
            assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)
        case ["curl", "-X", method, url]:
            path = url.removeprefix(ADDRESS).replace("/optics", "/{name}")
            assert method.lower() in OPENAPI["paths"][path]
        case [".", ".venv/bin/activate"]:
            assert "\nVENV := .venv\n" in (ROOT / "Makefile").read_text()
        case ["docker", "compose", "up", "--build"]:
            assert (ROOT / "docker-compose.yml").is_file()
        case ["ssh", "-L", "8000:127.0.0.1:8000", "lab-computer"]:
            pass
        case _:
            pytest.fail(f"nothing here checks {command}")


def parse(words: list[str]) -> None:
    """Parse a command of pnnlab without running it; raises on an option that is not there."""
    group = typer.main.get_command(app)
    context = group.make_context("pnnlab", list(words))
    name, command, rest = group.resolve_command(context, words)
    given = command.make_context(name, rest, parent=context).params
    if name == "compare":
        lists = {key: tuple(given[key].split(",")) for key in ("methods", "twin_rows")}
        plan_comparison(**lists, **{key: given[key] for key in ("seeds", "split", "task")})


@pytest.mark.parametrize("text", [*blocks("reference.md", "toml"), *blocks("how-to.md", "toml")])
def test_every_toml_block_is_valid(text: str) -> None:
    data = tomllib.loads(text)
    if data.keys() <= TrainConfig.model_fields.keys():
        TrainConfig.model_validate(data)
    elif "name" in data:
        BenchConfig.model_validate(data)
    else:
        bench = tomllib.loads((ROOT / "bench.toml").read_text())
        with open_bench(BenchConfig.model_validate(merged(bench, data))) as opened:
            spec = opened.system("optics").description.x
            field = np.full((1, *spec.shape), spec.high)
            opened.system("optics").transform(field, field)


def merged(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    both = {key: merged(base[key], over[key]) for key in base.keys() & over.keys()}
    return {**base, **over, **both} if isinstance(over, dict) else over


def test_the_json_block_is_a_pass() -> None:
    (text,) = blocks("reference.md", "json")
    assert PassRequest.model_validate_json(text).client == "me"


# --- what the reference lists ---------------------------------------------------------------


def settings(driver: type) -> dict[str, Any]:
    """Return a driver's settings as the bench file may give them, with their defaults."""
    others = {"self", "client", "adapter", "name", "expect_idn", "settling_time_s", "kwargs"}
    limits = {"attenuation", "phase"}
    parameters = inspect.signature(driver.__init__).parameters
    return {key: p.default for key, p in parameters.items() if key not in others | limits}


def defaults(model: type[BaseModel], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, field in model.model_fields.items():
        if isinstance(field.default, BaseModel):
            found |= defaults(type(field.default), f"{prefix}{key}.")
        else:
            found[prefix + key] = field.default
    return found


def as_shown(default: Any) -> str:
    if default is PydanticUndefined:
        return "required"
    return "none" if default is None else f"`{json.dumps(default)}`"


@pytest.mark.parametrize(
    ("heading", "expected"),
    [
        ("The file", defaults(BenchConfig)),
        ("[rigs.NAME]", defaults(lab.config.RigConfig)),
        ("[instruments.NAME]", defaults(lab.config.InstrumentConfig)),
        ("[systems.NAME]", defaults(lab.config.SystemConfig)),
        ("Training config", defaults(TrainConfig)),
        ("Twin config", defaults(FitConfig)),
        ("WaveShaperA", settings(WaveShaperA)),
        ("YokogawaAQ6370", settings(YokogawaAQ6370)),
    ],
)
def test_every_key_is_listed_with_its_default(heading: str, expected: dict[str, Any]) -> None:
    shown = {key: cells[0] for key, cells in table(heading).items()}
    assert shown == {key: as_shown(default) for key, default in expected.items()}


CLI = typer.main.get_command(app).commands


@pytest.mark.parametrize("name", CLI)
def test_every_option_is_listed_with_its_default(name: str) -> None:
    (heading,) = re.findall(rf"^### (pnnlab {name}\b.*)$", REFERENCE, re.MULTILINE)
    options = {p.opts[0]: p for p in CLI[name].params if p.param_type_name == "option"}
    shown = table(heading)
    assert shown.keys() == options.keys()
    for option, (default, *_) in shown.items():
        if name != "submit" and options[option].default is not None:
            assert default.strip("`").replace("off", "False") == str(options[option].default)


def test_no_other_command_is_named() -> None:
    for text in TEXT.values():
        assert set(re.findall(r"`pnnlab ([a-z]+)", text)) <= set(CLI)


def test_every_route_is_listed_with_its_statuses() -> None:
    routes = {
        f"{method.upper()} {path}": sorted(set(operation["responses"]) - {"422"})
        for path, operations in OPENAPI["paths"].items()
        for method, operation in operations.items()
    }
    shown = {
        route: sorted([done, *failed.split()]) for route, (done, failed, _) in table("REST").items()
    }
    assert shown == routes


def test_every_problem_is_listed_with_its_status() -> None:
    known = {problem_type(kind).removeprefix(PREFIX): status for kind, status in STATUS.items()}
    shown = {name: int(status) for name, (status, _) in table("Problems").items()}
    assert shown == {**known, "invalid-request": 422, "internal-error": 500}


def test_refusals_of_any_request_are_listed_under_their_own_names() -> None:
    (rows,) = re.findall(r"Some may answer any request:\n\n((?:\|.*\n)+)", REFERENCE)
    listed = re.findall(r"^\| `([\w-]+)` \| (\d+) \|", rows, re.MULTILINE)
    assert sorted(status for _, status in listed) == ["400", "403", "413", "421"]
    for name, status in listed:
        body = json.loads(status_problem(int(status), "").body)
        assert body["type"] == PREFIX + name


def test_every_method_of_the_client_is_listed() -> None:
    methods = set()
    for name, method in vars(Client).items():
        if inspect.isfunction(method) and not name.startswith("_"):
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
    assert listed == ["kind", *(f.name for f in fields(EpochMetric))]
    assert list(table("Row keys")) == [f.name for f in fields(RowKey)]


# --- the examples, against a service on the simulated bench ---------------------------------


def small_dataset(task: str) -> Dataset:
    """Return as many features and classes as the digits have, and few samples."""
    rng = np.random.default_rng(0)
    classes = tuple("0123456789")
    return Dataset(task, rng.random((40, 49)), np.arange(40) % 10, classes, None, "made up")


@contextmanager
def serving(bench: BenchConfig, folder: Path) -> Iterator[str]:
    """Serve a bench on the loopback, in a thread; give its address."""
    ready = threading.Event()
    with listen("127.0.0.1", 0) as listener:
        server = LabServer(create_app(bench, data_dir=folder), ready.set)
        work = run(server, server.config.app, listener)
        thread = threading.Thread(target=lambda: asyncio.run(work))
        thread.start()
        try:
            assert ready.wait(LIMIT_S), "the service did not start"
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(LIMIT_S)
    assert not thread.is_alive(), "the service did not stop"


@pytest.fixture(scope="module")
def quick() -> Iterator[None]:
    """Let jobs train on few samples, and fit their twins in three steps."""
    fit = functools.partial(lab.jobs.runner.fit_system_twin, settings=FitSettings(steps=3))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lab.jobs.runner, "load", small_dataset)
        patch.setattr(lab.jobs.runner, "fit_system_twin", fit)
        yield


@pytest.fixture(scope="module")
def url(quick: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with serving(load_bench(ROOT / "bench.toml"), tmp_path_factory.mktemp("service")) as url:
        yield url


def execute(code: str, url: str) -> None:
    assert ADDRESS in code
    exec(compile(code.replace(ADDRESS, url), "<docs>", "exec"), {})


def pnnlab(command: str, url: str, *more: str) -> str:
    words = [*shlex.split(command)[1:], *more]
    result = CliRunner().invoke(app, words, env={"PNNLAB_URL": url})
    assert result.exit_code == 0, result.output
    return result.stdout


def labels(text: str) -> list[str]:
    """Return what each line of a result says, without its numbers and the job's id."""
    without_id = re.sub(r"\b[0-9a-f]{12}\b", "", text)
    return [re.sub(r"[ \d.,%]+", " ", line) for line in without_id.splitlines()]


def test_the_tutorial(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    _, check, serve, submit, jobs = "\n".join(blocks("tutorial.md", "sh")).split("\npnnlab ")
    assert serve.strip() == "serve"
    checked, trained = blocks("tutorial.md", "text")
    number = r"\d+(\.\d+)?(e-\d+)?"
    found = pnnlab(f"pnnlab {check}", url)
    assert re.sub(number, "#", found) == re.sub(number, "#", checked)
    found = pnnlab(f"pnnlab {submit}", url)
    assert labels(found) == labels(trained)
    job = found.split()[1]
    assert f"{job}  succeeded" in pnnlab(f"pnnlab {jobs}", url)
    monkeypatch.chdir(tmp_path)
    for code in blocks("tutorial.md", "python"):
        execute(code, url)
    printed = capsys.readouterr().out
    assert "epoch 3 accuracy" in printed
    assert "on the device 0." in printed
    assert "brighter row by row" in printed
    assert (tmp_path / "network.pt").is_file()


def test_recovering(
    url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def time_out(spectrometer: YokogawaAQ6370) -> None:
        raise InstrumentTimeout(spectrometer.name, "no answer in 5 s")

    status, recover = blocks("how-to.md", "python", "Recover a faulted system")
    with Client(url) as client, monkeypatch.context() as patch:
        patch.setattr(YokogawaAQ6370, "measure", time_out)
        with pytest.raises(Exception, match="no answer in 5 s"):
            client.measure("optics", np.zeros((1, 50)), np.zeros((1, 50)))
    execute(status, url)
    assert "optics faulted" in capsys.readouterr().out
    execute(recover, url)
    assert capsys.readouterr().out == "ok\n"


def test_a_twins_report_is_listed_key_by_key(url: str) -> None:
    with Client(url) as client:
        job = client.fit_twin(task="digits")["id"]
        assert list(client.watch(job))[-1].data["state"] == "succeeded"
        report = client.result(job)["report"]
    assert table("A twin's report").keys() == report.keys()
    (meaning,) = table("A twin's report")["random"]
    assert set(report["random"]) <= set(re.findall(r"`(\w+)`", meaning))


def test_one_twin_for_several_jobs(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    (code,) = blocks("how-to.md", "python", "Fit one twin and use it for several jobs")
    execute(code, url)
    assert "shape_r2" in capsys.readouterr().out


def test_a_system_of_ones_own(quick: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    section = "Add a driver or a system"
    (module,) = blocks("how-to.md", "python", section)
    (bench,) = blocks("how-to.md", "toml", section)
    check, submit = blocks("how-to.md", "sh", section)
    (tmp_path / "my_lab.py").write_text(module)
    (tmp_path / "oscillators.toml").write_text(bench)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert "Example oscillator board" in pnnlab(check, ADDRESS)
    with serving(load_bench(tmp_path / "oscillators.toml"), tmp_path / "service") as url:
        shown = pnnlab(submit, url, "--epochs", "1", "--watch")
    assert "accuracy on the device" in shown


def test_no_python_block_is_left_out() -> None:
    count = {page: len(blocks(page, "python")) for page in TEXT}
    assert {page: n for page, n in count.items() if n} == {"tutorial.md": 2, "how-to.md": 4}
