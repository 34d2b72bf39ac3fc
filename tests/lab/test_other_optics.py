"""The optical bench with other instruments: an Ocean spectrometer, a phase display."""

import tomllib

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from documentation import blocks
from drivers.row_key import row_keys
from lab.bench import open_bench
from lab.bench_config import BenchConfig, load_bench
from served import ROOT, served_bench

ROWS = 4


def bench_with(page: str) -> BenchConfig:
    """Return bench.toml with the instrument and the system of a documentation page."""
    (text,) = blocks(page, "toml")
    over = tomllib.loads(text)
    data = load_bench(ROOT / "bench.toml").model_dump()
    data["instruments"] |= over["instruments"]
    data["systems"]["optics"]["instruments"] |= over["systems"]["optics"]["instruments"]
    return BenchConfig.model_validate(data)


def measured(config: BenchConfig) -> np.ndarray:
    rng = np.random.default_rng(0)
    x, theta = rng.uniform(-0.5, 1, (2, ROWS, 50))
    with open_bench(config) as bench:
        rows = bench.system("optics").transform(x, theta, row_keys(1, 0, ROWS, 0.75))
    assert not rows.saturated.any()
    return rows.y


@pytest.fixture(scope="module")
def standard() -> np.ndarray:
    return measured(load_bench(ROOT / "bench.toml"))


def test_an_ocean_spectrometer_measures_the_same_spectra(standard):
    pytest.importorskip("seabreeze", reason="needs `pip install 'pnnlab[ocean]'`")
    y = measured(bench_with("instruments/ocean.md"))
    # the noise of other pixels than the analyser's, and of the dark frames
    assert np.abs(y - standard).max() < 0.05 * standard.max()


def test_on_a_socket_it_measures_the_same_bits():
    pytest.importorskip("seabreeze", reason="needs `pip install 'pnnlab[ocean]'`")
    config = bench_with("instruments/ocean.md")
    with served_bench(config) as (client, _):
        assert client.instruments["ocean"].address.startswith("ocean://127.0.0.1:")
        over_the_socket = measured(client)
    assert_array_equal(over_the_socket, measured(config))


def test_a_phase_display_shapes_the_same_pulses(standard):
    y = measured(bench_with("instruments/slm.md"))
    # grey levels: a field is met to 1.2 %, pixel by pixel, and noise
    assert np.abs(y - standard).max() < 0.03 * standard.max()
