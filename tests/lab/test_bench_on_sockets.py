"""A bench on sockets measures, bit for bit, what it measures in memory."""

import asyncio
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal

from drivers.errors import ConnectionLost
from drivers.mock.rig import Rig
from drivers.row_key import RowKey, row_keys
from lab.apparatus import open_apparatus
from lab.bench import open_bench
from lab.bench_config import BenchConfig, load_bench
from lab.measurement import ForwardPass
from lab.pat import PhysicalLayer
from served import ROOT, served_bench

ROWS = 7


@pytest.fixture(scope="module")
def there() -> Iterator[tuple[BenchConfig, dict[str, Rig]]]:
    with served_bench() as (config, rigs):
        yield config, rigs


def drives(rows: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.uniform(-0.5, 1, (rows, 50)), rng.uniform(-0.5, 1, (rows, 50))


def in_memory(x: np.ndarray, theta: np.ndarray, keys: list[RowKey]) -> np.ndarray:
    with open_bench(ROOT / "bench.toml") as bench:
        return bench.system("optics").transform(x, theta, keys).y


def counted(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list that grows by the number of keys of each announcement."""
    calls: list[int] = []
    announce = rig.announce_rows

    def count(keys, coming=()):
        calls.append(len(keys))
        announce(keys, coming)

    monkeypatch.setattr(rig, "announce_rows", count)
    return calls


def test_rows_with_keys_are_the_same_bits_for_one_announcement_a_pass(there, monkeypatch):
    config, rigs = there
    x, theta = drives(ROWS)
    keys = row_keys(3, 100, ROWS, 0.75, waited_s=1e4 / 3)
    with open_bench(config) as bench:
        calls = counted(rigs["optics"], monkeypatch)
        optics = bench.system("optics")
        first = optics.transform(x[:1], theta[:1], keys[:1]).y
        del calls[:]  # from then on it is known that keys are taken ahead
        rest = optics.transform(x[1:], theta[1:], keys[1:]).y
    assert calls == [ROWS - 1]
    assert_array_equal(np.concatenate([first, rest]), in_memory(x, theta, keys))
    assert rigs["optics"].instruments["shaper"].blocked


def test_a_bench_that_was_started_anew_is_told_the_rest_of_a_pass_again(there):
    config, rigs = there
    x, theta = drives(ROWS)
    keys = row_keys(3, 200, ROWS, 0.75)
    with open_bench(config) as bench:
        optics = bench.system("optics")
        optics.transform(x[:1], theta[:1], keys[:1])  # from then on keys are taken ahead
        optics.expect(keys)
        y = [optics.measure(x[i : i + 1], theta[i : i + 1], keys[i : i + 1]).y for i in range(3)]
        rigs["optics"].announce_rows(())  # a new process has heard of nothing
        optics.start()
        optics.expect(keys)
        rest = range(3, ROWS)
        y += [optics.measure(x[i : i + 1], theta[i : i + 1], keys[i : i + 1]).y for i in rest]
    assert_array_equal(np.concatenate(y), in_memory(x, theta, keys))


def test_a_board_with_many_rows_a_waveform_measures_the_same_bits_too(monkeypatch):
    file = load_bench(ROOT / "bench-redpitaya.toml")
    rng = np.random.default_rng(0)
    x, theta = rng.uniform(-1, 1, (2, 40, 208))
    keys = row_keys(9, 0, 40, 0.001)
    with open_bench(file) as bench:
        expected = bench.system("circuit").transform(x, theta, keys).y
    with served_bench(file) as (config, rigs), open_bench(config) as bench:
        circuit = bench.system("circuit")
        circuit.transform(x[:1], theta[:1], keys[:1])
        calls = counted(rigs["circuit"], monkeypatch)
        assert_array_equal(circuit.transform(x, theta, keys).y, expected)
    assert calls == [40]


def test_a_training_is_the_same_bit_for_bit(there):
    def train(config: BenchConfig) -> list[float]:
        rng = np.random.default_rng(5)
        x, target = (torch.from_numpy(rng.uniform(0, 1, (4, 50))).float() for _ in range(2))
        with open_bench(config) as bench:
            twin = bench.new_twin("optics")
            start = torch.full((50,), 0.7)
            layer = PhysicalLayer(start, bench.measure("optics", stream=11), twin)
            adam = torch.optim.Adam([layer.theta], lr=0.03)
            losses = []
            for _ in range(4):
                loss = ((layer(x) - target) ** 2).mean()
                adam.zero_grad()
                loss.backward()
                adam.step()
                losses.append(loss.item())
        return losses

    losses = train(there[0])
    assert losses == train(load_bench(ROOT / "bench.toml"))
    assert losses[-1] < losses[0]


def test_passes_that_take_turns_keep_their_keys(there):
    config, _ = there
    config = config.model_copy(
        update={"scheduler": config.scheduler.model_copy(update={"slice_s": 0.001})}
    )
    passes = [(drives(20, seed), row_keys(seed, 0, 20, 0.75)) for seed in (1, 2)]

    async def measure() -> list[np.ndarray]:
        with open_bench(config, start=False) as bench:
            async with bench.scheduler() as scheduler:
                forward = [
                    ForwardPass("optics", *xs, keys=keys, client=str(i))
                    for i, (xs, keys) in enumerate(passes)
                ]
                found = await asyncio.gather(*map(scheduler.submit, forward))
        return [measurement.y for measurement in found]

    for y, (xs, keys) in zip(asyncio.run(measure()), passes, strict=True):
        assert_array_equal(y, in_memory(*xs, keys))


def test_rows_without_keys_use_no_key_of_a_pass_that_was_stopped(there):
    config, _ = there
    x, theta = drives(4)
    with open_bench(config) as bench:
        optics = bench.system("optics")
        optics.transform(x[:1], theta[:1], row_keys(1, 0, 1, 0.75))
        answers = iter([False, True])
        stopped = optics.transform(x, theta, row_keys(1, 0, 4, 0.75), lambda: next(answers))
        assert len(stopped.y) == 1
        own = optics.transform(x[1:2], theta[1:2]).y
        later = optics.transform(x[1:2], theta[1:2], row_keys(1, 1, 1, 0.75)).y
    assert (own != later).any()
    assert_array_equal(later, in_memory(x[1:2], theta[1:2], row_keys(1, 1, 1, 0.75)))


def test_its_physics_is_elsewhere(there):
    config, _ = there
    with open_bench(config, start=False) as bench:
        assert bench.plant("optics") is None
        apparatus = open_apparatus(bench, "optics")
        with pytest.raises(ValueError, match="optics"):
            apparatus.open_oracle(apparatus.open_device(0, 0))


def test_a_rig_that_is_not_there_is_an_error_with_its_name():
    config = load_bench(ROOT / "bench.toml")
    with served_bench(config) as (client, _):
        rig = client.rigs["optics"].model_copy(update={"admin": "http://127.0.0.1:9"})
        x, theta = drives(1)
        with (
            open_bench(client.model_copy(update={"rigs": {"optics": rig}})) as bench,
            pytest.raises(ConnectionLost, match=r"rig optics: POST http://127\.0\.0\.1:9/rigs/opt"),
        ):
            bench.system("optics").transform(x, theta, row_keys(0, 0, 1, 0.75))
