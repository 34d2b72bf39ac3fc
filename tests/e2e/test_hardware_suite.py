"""The tests of a lab's own bench, run on a simulated one: over real sockets, and in memory."""

import os
import re
import subprocess
import sys

import pytest

from documentation import ROOT
from drivers.transport import open_rigs
from lab.bench_config import load_bench
from served import served, served_bench
from server.bench_file import write_bench


def run(bench, *options):
    """Run the hardware tests in a process of their own; return exit status and output."""
    command = [sys.executable, "-m", "pytest", "tests/hardware", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*command, "--bench", str(bench), *options],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    return done.returncode, done.stdout + done.stderr


def outcomes(output):
    """Return how many tests passed, failed, were skipped, ...; by the last line."""
    return {what: int(count) for count, what in re.findall(r"(\d+) (\w+)[, ]", output[-200:])}


@pytest.fixture
def lab(tmp_path):
    """Return the file of a lab: optics and Red Pitaya on sockets, a board and sound in memory."""
    text = (ROOT / "bench.toml").read_text(encoding="utf-8") + rest_of("bench-redpitaya.toml")
    text = text.replace("[instruments.daq", "[instruments.redpitaya").replace(
        '"daq"', '"redpitaya"'
    )
    text = text.replace("[systems.circuit]", "[systems.fast-circuit]")
    text = text.replace("row_time_s = 0.5 ", "row_time_s = 0.02 ")
    rigs = open_rigs({**load_bench("bench.toml").rigs, **load_bench("bench-circuit.toml").rigs})
    with served(rigs, re.findall(r"\"(mock://\S+)\"", text)) as there:
        for simulated, real in there.addresses.items():
            text = text.replace(simulated, real)
        text = re.sub(r"^\[rigs.*?(?=^\[instr)", "", text, flags=re.MULTILINE | re.DOTALL)
        text += rest_of("bench-circuit.toml") + rest_of("bench-plate.toml")
        file = tmp_path / "lab.toml"
        file.write_text(text, encoding="utf-8")
        yield file


def rest_of(name):
    """Return what stands in a bench file, without its name."""
    text = (ROOT / name).read_text(encoding="utf-8")
    return re.sub(r"^name = .*$", "", text, flags=re.MULTILINE)


def test_a_simulated_lab_passes_and_its_figures_are_printed(lab):
    status, output = run(lab)
    assert status == 0, output
    counted = outcomes(output)
    assert counted.pop("passed") > 40
    assert counted.keys() == {"skipped"}, output  # what an instrument has not
    for figure in ("shaper: WaveShaper", "optics: dark", "plate: noise", "circuit: a row takes"):
        assert f"\n{figure}" in output
    for instrument in ("shaper", "spectrometer", "redpitaya"):
        assert f"\n{instrument}: a cut line was told and mended" in output


def test_a_bench_that_is_not_as_its_file_says_fails(lab):
    text = lab.read_text(encoding="utf-8")
    lab.write_text(text.replace("YOKOGAWA,AQ6370", "YOKOGAWA,AQ6375"), encoding="utf-8")
    status, output = run(lab, "-k", "who_the_bench_file_says")
    assert status == 1, output
    counted = outcomes(output)
    assert (counted["failed"], counted["passed"]) == (1, 4)
    assert "'YOKOGAWA,AQ6370D,91X000001,02.01' answers, not /YOKOGAWA,AQ6375/" in output


def test_a_bench_as_the_served_one_writes_it_is_cut_too(tmp_path):
    file = tmp_path / "client.toml"
    with served_bench() as (client, _):
        write_bench(file, client)
        status, output = run(file, "-k", "cut_line or repeat")
    assert status == 0, output
    for instrument in ("shaper", "spectrometer"):
        assert f"\n{instrument}: a cut line was told and mended" in output
