"""Networks as the config describes them: sizes, passes, signs, seeds, and what is refused."""

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from lab.config import TrainConfig
from lab.errors import ConfigError
from lab.models import PhysicalNetwork, build_network
from lab.network_config import (
    BrightnessFree,
    Linear,
    NetworkConfig,
    Permute,
    Rescale,
    Series,
    Skip,
    Standardise,
    Windows,
)

SIGNED = NetworkConfig(
    layers=2,
    parallel=3,
    theta="normal",
    signed=True,
    first=Series(),
    before=(Rescale(start="signs"),),
    after=(Standardise(by="pass"), Skip(of="layer", trained=True), Permute()),
    last=(Standardise(by="pass"), Windows(margin=0, weighted=True)),
)
HYBRID = NetworkConfig(
    layers=1, parallel=2, theta="data", first=Linear(), after=(), last=(Standardise(), Linear())
)


class Recorder:
    """A device of ten channels that keeps what it was asked."""

    def __init__(self) -> None:
        self.calls: list[tuple[Tensor, Tensor]] = []

    def __call__(self, x: Tensor, theta: Tensor) -> Tensor:
        self.calls.append((x, theta))
        return torch.sin(3 * x + theta)


class Model(nn.Module):
    """Its twin."""

    def forward(self, x: Tensor, theta: Tensor) -> Tensor:
        return x * theta


def build(
    config: NetworkConfig, device: Recorder | None = None, seed: int = 0, **sizes: int
) -> PhysicalNetwork:
    known = {"features": 5, "x_size": 10, "theta_size": 10, "y_size": 10, "classes": 4}
    return build_network(device or Recorder(), Model(), config, **{**known, **sizes}, seed=seed)


FEATURES = torch.rand(6, 5, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("config", [NetworkConfig(last=(Windows(margin=0),)), SIGNED, HYBRID])
def test_every_sample_is_measured_once_a_pass_and_layer(config: NetworkConfig) -> None:
    device = Recorder()
    network = build(config, device)
    network.initialise(FEATURES)
    device.calls.clear()
    assert network(FEATURES).shape == (6, 4)
    assert [len(x) for x, _ in device.calls] == [6 * config.parallel] * config.layers
    assert TrainConfig(network=config).rows_a_sample == config.parallel * config.layers
    for x, theta in device.calls:
        assert x.shape[1] == theta.shape[1] == 10
        assert 0 <= float(x.min()) <= float(x.max()) <= 1


def test_a_signed_networks_zero_is_the_middle_of_the_range() -> None:
    device = Recorder()
    network = build(SIGNED, device)
    network(torch.full((2, 5), 0.5))  # a series of silence
    x, _ = device.calls[0]
    assert (x == 0.5).all()
    measured = network.last_output(torch.full((2, 5), 0.5))
    x, theta = device.calls[-1]
    torch.testing.assert_close(
        measured.flatten(0, 1), 2 * torch.sin(3 * x + theta) - 1, atol=1e-6, rtol=1e-6
    )


def test_theta_from_the_data_is_what_the_first_stage_gives() -> None:
    device = Recorder()
    network = build(HYBRID, device)
    network.initialise(FEATURES)
    device.calls.clear()
    network(FEATURES)
    ((x, theta),) = device.calls
    encoded = network.encode(FEATURES).clamp(0, 1).flatten(0, 1)
    assert torch.equal(torch.cat((x, theta), 1), encoded)
    assert network.physical_parameters() == []


@pytest.mark.parametrize(
    ("theta", "mean", "spread"), [("dark", 1 / 3, 0.298), ("normal", 0.5, 0.1)]
)
def test_theta_starts_as_the_config_says(theta: str, mean: float, spread: float) -> None:
    network = build(
        NetworkConfig(theta=theta, parallel=8, last=(Windows(margin=0),)), theta_size=10
    )
    values = torch.cat([t.detach().flatten() for t in network.physical_parameters()])
    assert values.shape == (5 * 8 * 10,)
    # 400 numbers: four standard errors
    assert float(values.mean()) == pytest.approx(mean, abs=4 * spread / 20)
    assert float(values.std()) == pytest.approx(spread, rel=0.2)


def test_starts_follow_from_the_seed_alone() -> None:
    for config in (SIGNED, HYBRID):
        one, same, other = (build(config, seed=seed).state_dict() for seed in (3, 3, 4))
        assert all(torch.equal(value, same[name]) for name, value in one.items())
        assert any(not torch.equal(value, other[name]) for name, value in one.items())


def test_theta_does_not_depend_on_the_digital_stages() -> None:
    plain = build(NetworkConfig(theta="normal", parallel=3, layers=2, last=(Windows(margin=0),)))
    for a, b in zip(plain.physical_parameters(), build(SIGNED).physical_parameters(), strict=True):
        assert torch.equal(a, b)


def test_every_parameter_is_physical_or_digital() -> None:
    network = build(SIGNED)
    network(FEATURES).square().sum().backward()
    physical, digital = network.physical_parameters(), network.digital_parameters()
    assert len(physical) == 2
    ids = [id(p) for p in (*physical, *digital)]
    assert sorted(ids) == sorted(id(p) for p in network.parameters())
    assert all(p.grad is not None for p in (*physical, *digital))


def test_decays_are_those_of_the_matrices() -> None:
    config = HYBRID.model_copy(
        update={"first": Linear(decay=0.5), "last": (Standardise(), Linear(decay=0.05))}
    )
    assert [(p.numel(), decay) for p, decay in build(config).decays()] == [
        (2 * 20 * 5, 0.5),
        (4 * 20, 0.05),
    ]
    assert build(HYBRID).decays() == []


def test_the_output_can_be_read_apart_from_the_layers() -> None:
    network = build(SIGNED)
    network.initialise(FEATURES)
    torch.testing.assert_close(
        network.read_output(network.last_output(FEATURES)), network(FEATURES)
    )


def test_without_the_device_nothing_but_its_outputs_is_needed_to_start_the_output_again() -> None:
    network = build(SIGNED)
    network.initialise(FEATURES)
    outputs = network.last_output(FEATURES)
    network.initialise_output(3 * outputs + 1)
    logits = network.read_output(3 * outputs + 1).detach()
    torch.testing.assert_close(logits.mean(0), torch.zeros(4), atol=1e-3, rtol=0)


@pytest.mark.parametrize(
    ("config", "sizes", "named"),
    [
        (NetworkConfig(layers=2), {"y_size": 8}, "10 inputs cannot follow layers of 8 outputs"),
        (NetworkConfig(), {"features": 11}, "11 features do not fit into 10 channels"),
        (NetworkConfig(), {}, r"network\.last: 4 classes do not fit into 2 channels"),
    ],
)
def test_what_does_not_fit_is_refused_by_its_key(
    config: NetworkConfig, sizes: dict[str, int], named: str
) -> None:
    with pytest.raises(ConfigError, match=named):
        build(config, **sizes)


def test_data_in_the_place_of_theta_is_for_one_layer_only() -> None:
    with pytest.raises(ValidationError, match="not 2 layers but 1"):
        NetworkConfig(layers=2, theta="data")


@pytest.mark.parametrize("last", [(), (BrightnessFree(),), (Windows(), BrightnessFree())])
def test_a_network_ends_with_logits(last: tuple[object, ...]) -> None:
    with pytest.raises(ValidationError, match="logits come from windows or linear"):
        NetworkConfig(last=last)


def test_a_stage_is_named_in_what_only_was_set() -> None:
    """What is sent to a service is what was set: without its kind a stage is none."""
    config = TrainConfig(network=NetworkConfig(first=Linear(mean=0.4), after=(Skip(),)))
    sent = config.model_dump(exclude_unset=True)
    assert sent["network"] == {
        "first": {"kind": "linear", "mean": 0.4},
        "after": ({"kind": "skip"},),
    }
    assert TrainConfig.model_validate(sent) == config


@pytest.mark.parametrize(
    ("stage", "named"),
    [
        ({"kind": "blur"}, "blur"),
        ({"kind": "skip", "share": 1.5}, "share"),
        ({"kind": "skip", "shares": 0.5}, "shares"),
    ],
)
def test_a_stage_that_there_is_not_is_refused(stage: dict[str, object], named: str) -> None:
    with pytest.raises(ValidationError, match=named):
        NetworkConfig.model_validate({"after": [stage]})
