"""Every link of the documentation leads somewhere, every command and code block is valid."""

import re
import shlex
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer

from documentation import ADDRESS, DOCS, OPENAPI, ROOT, TEXT, blocks, table
from drivers.mock.faults import FaultOrder
from drivers.mock.serve.admin import Admin
from drivers.transport import Rig, open_rigs
from lab.bench import open_bench
from lab.bench_config import BenchConfig, RigConfig
from lab.comparison.plan import plan_comparison
from lab.config import CONTROLS, TrainConfig
from server.cli import app
from server.views import PassRequest

ADMIN = "http://127.0.0.1:9000"


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


def test_the_contents_of_the_how_to_list_every_section() -> None:
    listed = re.findall(r"^- \[(.*?)\]\(#", TEXT["how-to.md"], re.MULTILINE)
    assert listed == re.findall(r"^## (.*)", TEXT["how-to.md"], re.MULTILINE)


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
    known = {*table("Environment variables"), "PYTHONPATH"}
    assert set(re.findall(r"([A-Z_]+)=", variables)) <= known
    match shlex.split(command.removeprefix(variables)):
        case ["pnnlab", *words]:
            parse(words)
        case ["make", target]:
            assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)
        case ["curl", "-X", method, url, *rest] if url.startswith(ADMIN):
            body = rest[rest.index("-d") + 1].encode() if rest else b""
            there = Admin({"optics": optical()})
            assert there.handle(method, url.removeprefix(ADMIN), body)[0] == 200
        case ["curl", "-X", method, url]:
            path = url.removeprefix(ADDRESS).replace("/optics", "/{name}")
            assert method.lower() in OPENAPI["paths"][path]
        case [".", ".venv/bin/activate"]:
            assert "\nVENV := .venv\n" in (ROOT / "Makefile").read_text()
        case ["pytest", path, "--bench", "my-bench.toml"]:
            assert (ROOT / path).exists()
            assert '"--bench"' in (ROOT / "tests" / "hardware" / "conftest.py").read_text()
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
    if hasattr(command, "commands"):
        context = command.make_context(name, rest, parent=context)
        if not rest or rest[0].startswith("-"):  # a group that does something by itself
            return
        name, command, rest = command.resolve_command(context, rest)
    given = command.make_context(name, rest, parent=context).params
    if name == "compare":
        words = {key: given[key] for key in ("methods", "twin_rows", "controls", "gap")}
        lists = {key: tuple(text.split(",")) for key, text in words.items() if text}
        lists["gaps"] = lists.pop("gap", (None,))
        if lists["controls"] in (("all",), ("none",)):
            lists["controls"] = CONTROLS
        plain = {key: given[key] for key in ("seeds", "split", "task") if given[key] is not None}
        plan_comparison(**lists, **plain)


def optical() -> Rig:
    return open_rigs({"optics": RigConfig()})["optics"]


@pytest.mark.parametrize("text", [block for page in TEXT for block in blocks(page, "toml")])
def test_every_toml_block_is_valid(text: str) -> None:
    data = tomllib.loads(text)
    if data.keys() <= TrainConfig.model_fields.keys():
        TrainConfig.model_validate(data)
    elif data.keys() == {"faults"}:
        for fault in data["faults"]:
            optical().arm(FaultOrder.read({k: v for k, v in fault.items() if k != "rig"}))
    elif "name" in data:
        config = BenchConfig.model_validate(data)
        if "rigs" in data and not any(":" in rig.plant for rig in config.rigs.values()):
            with open_bench(config):
                pass
    else:
        bench = tomllib.loads((ROOT / "bench.toml").read_text())
        with open_bench(BenchConfig.model_validate(merged(bench, data))) as opened:
            spec = opened.system("optics").description.x
            field = np.full((1, *spec.shape), spec.high)
            opened.system("optics").transform(field, field)


def merged(base: Any, over: Any) -> Any:
    if not isinstance(over, dict):
        return over
    both = {key: merged(base[key], over[key]) for key in base.keys() & over.keys()}
    return {**base, **over, **both}


def test_the_json_block_is_a_pass() -> None:
    (text,) = blocks("reference.md", "json")
    assert PassRequest.model_validate_json(text).client == "me"
