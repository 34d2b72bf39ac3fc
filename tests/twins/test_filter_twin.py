"""The filter twin: it finds filters between curves, in double precision too, with its true vjp."""

from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.func import functional_call

from lab.bench import open_bench
from lab.drives import random_series
from small_networks import BENCH
from twins.filters import FilterTwin
from twins.fitting import FitSettings, MeasuredRows, fit_twin, twin_error
from twins.linear_systems import convolution, least_squares_response

PLATE = Path(__file__).parents[2] / "bench-plate.toml"
SAMPLES = 24
RESPONSE = torch.exp(-torch.arange(SAMPLES) / 4.0) * torch.cos(torch.arange(SAMPLES) / 2.0)


def known_system(x: Tensor, theta: Tensor) -> Tensor:
    """Play through a curve, a filter and a curve: y about 0.6, normalised."""
    u = (2 * (x + theta) - 2).clamp(-1, 1)
    filtered = (u - 0.6 * u**3) @ convolution(RESPONSE.to(u))
    return 0.6 + 0.1 * torch.tanh(1.5 * filtered)


def rows(count: int, seed: int, dtype: torch.dtype = torch.float32) -> MeasuredRows:
    x, theta = (t.to(dtype) for t in random_series(count, SAMPLES, SAMPLES, seed=seed))
    return MeasuredRows(x, theta, known_system(x, theta))


def linear_r2(train: MeasuredRows, test: MeasuredRows) -> float:
    """Return r2 of the best causal linear filter with an offset."""

    def played(part: MeasuredRows) -> Tensor:
        return (2 * (part.x + part.theta) - 2).clamp(-1, 1).double()

    mean = train.y.double().mean()
    response = least_squares_response(played(train), train.y.double() - mean)
    predicted = mean + played(test) @ convolution(response)
    total = (test.y - test.y.mean(0)).double().square().sum()
    return float(1 - (predicted - test.y).square().sum() / total)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_it_finds_what_no_linear_filter_can(dtype: torch.dtype) -> None:
    train, test = rows(600, 0, dtype), rows(200, 1, dtype)
    twin = FilterTwin(SAMPLES).to(dtype)
    fit_twin(twin, train, seed=0, settings=FitSettings(steps=600, batch=128))
    error = twin_error(twin, test).r2
    assert error > 0.99
    assert 1 - error < 0.2 * (1 - linear_r2(train, test))
    predicted = twin(test.x, test.theta)
    assert predicted.dtype == dtype
    assert predicted.shape == test.y.shape


def test_before_the_fit_it_is_the_best_linear_response() -> None:
    train, test = rows(600, 0), rows(200, 1)
    twin = FilterTwin(SAMPLES)
    twin.prepare(train.x, train.theta, train.y)
    # but for the two other branches, which start near nothing, and a soft bound
    assert twin_error(twin, test).r2 == pytest.approx(linear_r2(train, test), abs=0.05)


def test_the_gradient_is_the_derivative_by_drive_and_parameters() -> None:
    twin = FilterTwin(6).double()
    g = torch.Generator().manual_seed(0)
    x, theta = 0.3 + 0.4 * torch.rand(2, 3, 6, generator=g, dtype=torch.float64)
    names = [name for name, _ in twin.named_parameters()]

    def predict(*inputs: Tensor) -> Tensor:
        parameters = dict(zip(names, inputs[2:], strict=True))
        y: Tensor = functional_call(twin, parameters, (inputs[0], inputs[1]))
        return y

    moving = (x.requires_grad_(), theta.requires_grad_(), *twin.parameters())
    assert torch.autograd.gradcheck(predict, moving, atol=1e-7)


def test_it_is_causal_and_clamps_as_the_systems_of_series_do() -> None:
    twin = FilterTwin(SAMPLES)
    x, theta = torch.full((2, 1, SAMPLES), 0.5)
    later = x.clone()
    later[0, 10] = 0.9
    change = (twin(later, theta) - twin(x, theta))[0]
    assert not change[:10].any()
    assert change[10:].any()
    loud = torch.ones(1, SAMPLES)
    assert torch.equal(twin(loud, loud), twin(loud, theta))


def test_its_seed_draws_the_small_branches() -> None:
    assert FilterTwin(SAMPLES).digest() == FilterTwin(SAMPLES, seed=0).digest()
    assert FilterTwin(SAMPLES, seed=1).digest() != FilterTwin(SAMPLES).digest()


def test_channels_side_by_side_have_no_filter_twin() -> None:
    with open_bench(BENCH, start=False) as bench, pytest.raises(ValueError, match="for series"):
        bench.new_twin("optics", "filter")


def test_the_plate_has_one_of_its_own_length_and_seed() -> None:
    with open_bench(PLATE, start=False) as bench:
        one, other = (bench.new_twin("plate", "filter", seed=seed) for seed in (0, 1))
    assert isinstance(one, FilterTwin)
    assert (one.x_size, one.y_size) == (196, 196)
    assert one.digest() != other.digest()
