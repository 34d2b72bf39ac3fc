"""What the README shows works: its example runs, its commands exist."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from lab.bench_config import BenchConfig
from server.app import create_app
from server.cli import app

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_example_runs_and_learns() -> None:
    (example,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len(example.splitlines()) <= 25
    found = subprocess.run(
        [sys.executable, "-W", "error", "-c", f"import torch; torch.manual_seed(0)\n{example}"],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},  # threads of busy neighbours wait spinning
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert found.returncode == 0, found.stderr
    losses = [float(loss) for loss in re.findall(r"step \d+: loss (\d\.\d+)", found.stdout)]
    assert len(losses) == 15
    assert losses[-1] < 0.8 * losses[0]


@pytest.mark.parametrize(
    "command", re.findall(r"(?:^    |`)(pnnlab [^`#\n]+?)(?: *#.*)?(?:`|$)", README, re.MULTILINE)
)
def test_every_command_and_option_exists(command: str) -> None:
    group = typer.main.get_command(app)
    words = shlex.split(command)[1:]
    context = group.make_context("pnnlab", list(words))
    name, found, rest = group.resolve_command(context, words)
    assert found is not None
    # parses the options without running the command; raises on one that is not there
    found.make_context(name, rest, parent=context)


def test_every_path_of_the_service_is_served() -> None:
    service = create_app(BenchConfig(name="", instruments={}, systems={}), data_dir=".")
    served = {service.openapi_url, *service.openapi()["paths"]}
    paths = set(re.findall(r"`(/[\w/.]+)`", README))
    assert paths
    assert paths <= served


def test_every_target_exists() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"make (\w+)", README)) - {"are"}
    assert targets >= {"demo", "test"}
    for target in targets:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
