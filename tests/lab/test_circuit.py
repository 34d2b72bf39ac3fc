"""The circuit's bench file, the system it opens, and its true gradient."""

from pathlib import Path

import numpy as np
import pytest
import torch

from drivers.errors import InstrumentTimeout, LimitError
from drivers.mock.faults import Fault
from drivers.mock.firmware.mcc import MccFirmware
from drivers.row_key import row_keys
from drivers.spec import Array
from lab.bench import open_bench
from lab.errors import ConfigError
from lab.oracle import open_oracle
from lab.pat import pat

BENCH = Path(__file__).parents[2] / "bench-circuit.toml"
REDPITAYA = BENCH.with_name("bench-redpitaya.toml")


def edited(tmp_path: Path, old: str, new: str) -> Path:
    text = BENCH.read_text()
    assert old in text
    path = tmp_path / "bench.toml"
    path.write_text(text.replace(old, new, 1))
    return path


def series(rows: int, seed: int = 0, low: float = -1.0, high: float = 1.0) -> tuple[Array, Array]:
    rng = np.random.default_rng(seed)
    x, theta = rng.uniform(low, high, (2, rows, 208))
    return x, theta


def test_rows_come_out_the_same_in_whatever_batches() -> None:
    """Three waveforms, one row each, or the other way round: bit for bit by their keys."""
    x, theta = series(300)
    keys = row_keys(1, 0, 300, 0.001)
    with open_bench(BENCH) as bench:
        system = bench.system("circuit")
        assert system.batch_rows == 131
        together = system.transform(x, theta, keys)
        assert together.y.shape == (300, 208)
        for i in (299, 0, 150):
            one = system.transform(x[i : i + 1], theta[i : i + 1], keys[i : i + 1])
            assert np.array_equal(one.y[0], together.y[i])


def test_a_failed_waveform_leaves_no_keys_behind() -> None:
    x, theta = series(4)
    keys = row_keys(1, 0, 4, 0.001)
    with open_bench(BENCH) as bench:
        system = bench.system("circuit")
        expected = system.transform(x, theta, keys).y
        bench.rigs["circuit"].inject("daq", Fault.TIMEOUT, "scan_wait input")
        with pytest.raises(InstrumentTimeout):
            system.transform(x, theta, row_keys(2, 0, 4, 0.001))
        assert np.array_equal(system.transform(x, theta, keys).y, expected)


def test_x_and_theta_are_added_and_clamped_to_full_scale(tmp_path: Path) -> None:
    quiet = edited(tmp_path, "noise = 1.0", "noise = 0.0")
    x, theta = series(3)
    played = np.clip(x + theta, -1, 1)
    assert (np.abs(x + theta) > 1).mean() > 0.1
    with open_bench(quiet) as bench:
        system = bench.system("circuit")
        keys = row_keys(1, 0, 3, 0.001)
        y = system.transform(x, theta, keys).y
        assert np.array_equal(system.transform(played, np.zeros_like(x), keys).y, y)
        assert np.array_equal(system.transform(theta, x, keys).y, y)


def test_values_out_of_range_are_refused_with_system_and_unit() -> None:
    x, theta = series(2)
    message = r"circuit: x: 1\.7 full scale .* outside \[-1, 1\] full scale"
    with open_bench(BENCH) as bench, pytest.raises(LimitError, match=message):
        bench.system("circuit").transform(np.full_like(x, 1.7), theta)


def test_a_clipped_input_is_reported_row_by_row() -> None:
    """A constant drive of full scale brings the collector beyond the input's range."""
    x = np.zeros((3, 208))
    x[1] = 1.0
    with open_bench(BENCH) as bench:
        rows = bench.system("circuit").transform(x, np.zeros_like(x))
    assert rows.saturated.tolist() == [False, True, False]
    assert rows.y[1].max() == 10.0
    assert rows.out_of_sync is None


@pytest.mark.parametrize(
    ("old", "new", "key", "reason"),
    [
        ("gap_samples = 792", "gap_samples = 300", "systems.circuit", "at least 700"),
        ("gap_samples = 792", "gaps = 792", "instruments.daq", "gaps"),
        ("samples = 208", "samples = 1", "instruments.daq", "samples"),
        (
            "samples = 208",
            "samples = 208\ndrive = [-5, 5]",
            "systems.circuit",
            "drive of -10 to 10 V",
        ),
        ("samples = 208", "samples = 208\ndrive = [-50, 5]", "instruments.daq", "wider"),
        ('plant = "circuit"', 'plant = "optics"', "instruments.daq", "no 'daq'"),
        ("mock://circuit/daq", "http://192.168.1.2", "instruments.daq", "not an mcc://"),
    ],
)
def test_a_wrong_bench_file_is_refused_with_key_and_reason(
    tmp_path: Path, old: str, new: str, key: str, reason: str
) -> None:
    with pytest.raises(ConfigError) as caught, open_bench(edited(tmp_path, old, new)):
        pass
    assert reason in str(caught.value)
    assert key in str(caught.value)


def test_a_narrowed_drive_needs_narrowed_series(tmp_path: Path) -> None:
    path = edited(tmp_path, "samples = 208", "samples = 208\ndrive = [-5, 5]")
    text = path.read_text().replace(
        'system = "circuit"',
        'system = "circuit"\nlimits = { x = [-0.3, 0.3], theta = [-0.2, 0.2] }',
    )
    path.write_text(text)
    x, theta = series(2, low=-0.2, high=0.2)
    with open_bench(path) as bench:
        assert bench.system("circuit").transform(x, theta).y.shape == (2, 208)


def test_the_bench_ends_at_0_v() -> None:
    with open_bench(BENCH) as bench:
        firmware = bench.rigs["circuit"].instruments["daq"]
        assert isinstance(firmware, MccFirmware)
        bench.system("circuit").transform(*series(2))
        firmware.play(np.full((3, 2), 4.0), 1e6)
    assert firmware.outputs_v == (0.0, 0.0)


# --- on the Red Pitaya --------------------------------------------------------------------------


def test_a_red_pitaya_measures_the_same_circuit() -> None:
    """Both DAQs, same keys: the plant's rows, but for steps of 1/8192 of the Red Pitaya's range."""
    x, theta = series(40)
    x[7] = theta[7] = 1.0  # saturates
    keys = row_keys(1, 0, 40, 0.001)
    with open_bench(REDPITAYA) as bench:
        system = bench.system("circuit")
        assert system.batch_rows == 16
        rows = system.transform(x, theta, keys)
        plant = bench.plant("circuit")
        # as the board's DAC plays them
        played = np.minimum(np.rint(np.clip(x + theta, -1, 1) * 8192), 8191) / 8192
        expected = plant.measure(10.0 * played, keys)
        assert (bench.rigs["circuit"].instruments["redpitaya"]).out_of_limits == 0
    unclipped = expected < 10.0
    assert np.abs(rows.y - expected)[unclipped].max() <= 10 / 8192 / 2 + 1e-9
    assert rows.y[~unclipped].min() == 10.0
    assert rows.saturated.tolist() == [i == 7 for i in range(40)]
    with open_bench(BENCH) as bench:
        other = bench.system("circuit").transform(x, theta, keys).y
    # the plant's own converters have 12 bits: a step of its DAC may fall on the other side
    assert np.sqrt(np.mean((rows.y - other) ** 2)) < 0.02


def test_a_red_pitaya_without_an_amplifier_cannot_drive_the_circuit(tmp_path: Path) -> None:
    path = tmp_path / "bench.toml"
    path.write_text(REDPITAYA.read_text().replace("amplifier_gain = 10.0", "amplifier_gain = 1.0"))
    with (
        pytest.raises(ConfigError, match="drive of -10 to 10 V, the limits of daq are -1 to 1 V"),
        open_bench(path),
    ):
        pass


# --- the true gradient --------------------------------------------------------------------------


def test_the_oracles_gradient_is_that_of_its_value(tmp_path: Path) -> None:
    """By x and by theta, where the sum is clamped too; between two steps of the DAC it is flat."""
    smooth = edited(tmp_path, "gap = 1.0", "gap = 0.0")
    g = torch.Generator().manual_seed(0)
    x, theta = torch.rand(2, 2, 208, generator=g, dtype=torch.float64)
    with open_bench(smooth) as bench:
        device = bench.measure("circuit")
        oracle = open_oracle(bench.system("circuit"), bench.plant("circuit"), device)
        device(x, theta)  # the oracle looks at the rows measured last
        weight = torch.randn(2, 208, generator=g, dtype=torch.float64)
        for k in (0, 1):
            moving = (x, theta)[k].clone().requires_grad_()
            inputs = [moving, theta] if k == 0 else [x, moving]
            (gradient,) = torch.autograd.grad((weight * oracle(*inputs)).sum(), moving)
            direction = torch.randn(2, 208, generator=g, dtype=torch.float64)
            ends = []
            for sign in (1, -1):
                shifted = [x.clone(), theta.clone()]
                shifted[k] += sign * 1e-7 * direction
                ends.append(float((weight * oracle(*shifted)).sum()))
            slope = (ends[0] - ends[1]) / 2e-7
            assert float((gradient * direction).sum()) == pytest.approx(slope, rel=1e-5)
            assert 0.1 < float((gradient == 0).double().mean()) < 0.4  # what is clamped


def test_the_oracles_value_is_the_noise_free_device(tmp_path: Path) -> None:
    quiet = edited(tmp_path, "noise = 1.0", "noise = 0.0")
    x, theta = torch.rand(2, 5, 208, generator=torch.Generator().manual_seed(1)).double()
    with open_bench(quiet) as bench:
        device = bench.measure("circuit", first_row=250_000)  # a quarter of the drift's period
        oracle = open_oracle(bench.system("circuit"), bench.plant("circuit"), device)
        y = pat(x, theta, device, oracle)
        # half a step of the ADC
        assert float((oracle(x, theta) - y).detach().abs().max()) <= 0.51 / 4096
