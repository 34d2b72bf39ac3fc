"""Random drives for a twin's fit suit the system: channels, or series that are added."""

import pytest
import torch

from drivers.spec import ArraySpec
from lab.bench import open_bench
from lab.config import TrainConfig
from lab.datasets import Dataset
from lab.drives import random_channels, random_drives, random_series
from lab.network_config import Linear, NetworkConfig, Standardise
from lab.systems.base import SystemDescription
from lab.twins import task_drives
from small_networks import BENCH, optics


def made_up(drives: str) -> SystemDescription:
    x, theta, y = (
        ArraySpec(n, "V", (size,), 0.0, 1.0) for n, size in zip("xty", (8, 5, 8), strict=True)
    )
    return SystemDescription("made up", x, theta, y, 1.0, drives)


@pytest.mark.parametrize(
    ("drives", "draw"), [("channels", random_channels), ("series", random_series)]
)
def test_a_system_says_what_its_drives_are(drives: str, draw) -> None:  # type: ignore[no-untyped-def]
    found, expected = random_drives(made_up(drives), 30, seed=4), draw(30, 8, 5, seed=4)
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one, other)
    x, theta = found
    assert (x.shape, theta.shape) == ((30, 8), (30, 5))
    for drive in found:
        assert 0 <= float(drive.min()) <= float(drive.max()) <= 1
    assert not torch.equal(x, random_drives(made_up(drives), 30, seed=5)[0])


def test_half_of_the_series_are_without_parameters() -> None:
    _, theta = random_series(2000, 20, 20, seed=0)
    silent = (theta == 0.5).all(1).double().mean()
    assert float(silent) == pytest.approx(0.5, abs=0.05)  # four standard errors
    assert float((theta[(theta != 0.5).any(1)] - 0.5).std()) == pytest.approx(0.1, abs=0.005)


def blobs() -> Dataset:
    features = torch.rand(40, 4, generator=torch.Generator().manual_seed(0)).numpy()
    return Dataset("blobs", features, torch.arange(40).numpy() % 3, tuple("abc"), None, "made up")


def test_a_tasks_drives_are_a_row_for_each_pass_of_the_first_layer() -> None:
    with open_bench(BENCH, start=False) as bench:
        description = bench.system("optics").description
    for parallel in (1, 3):
        config = TrainConfig(network=NetworkConfig(parallel=parallel))
        x, theta = task_drives(config, blobs(), description)
        assert x.shape == theta.shape == (27 * parallel, 50)
        assert torch.equal(theta, random_drives(description, len(x), seed=0)[1])
        assert torch.equal(x[0], x[parallel - 1])  # every pass is shown the same


def test_where_data_fill_theta_it_is_that_theta() -> None:
    last = (Standardise(), Linear())
    network = NetworkConfig(layers=1, theta="data", first=Linear(spread=0.1), after=(), last=last)
    with optics(noise=0.0) as apparatus:
        x, theta = task_drives(TrainConfig(network=network), blobs(), apparatus.description)
    both = torch.cat((x, theta), 1)
    torch.testing.assert_close(both.mean(0), torch.full((100,), 0.5), atol=1e-3, rtol=0)
    torch.testing.assert_close(both.std(0), torch.full((100,), 0.1), atol=1e-3, rtol=0)
