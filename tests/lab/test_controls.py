"""Crippled networks: each leaves out exactly what it says, and the ledger shows it."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import lab.budget
import lab.controls
import lab.trainer
from drivers.spec import ArraySpec
from lab.apparatus import Apparatus
from lab.budget import rows_to_measure
from lab.config import CONTROLS, Control, Method, TrainConfig
from lab.controls import ClampCount, IdentityPhysics
from lab.datasets import Dataset
from lab.measure import DeviceMeasure
from lab.models import PhysicalNetwork, build_network
from lab.network_config import NetworkConfig
from lab.systems.base import SystemDescription
from lab.train_result import TrainResult
from lab.trainer import train
from lab.twins import FittedTwin
from small_networks import optics
from twins.fitting import TwinError
from twins.optics import OpticsTwin

NETWORK = NetworkConfig(layers=2, parallel=2)


@pytest.fixture(scope="module")
def apparatus() -> Iterator[Apparatus]:
    with optics(noise=1.0) as opened:
        yield opened


def description(drives: str = "channels", y_size: int = 3) -> SystemDescription:
    x, theta = (ArraySpec(name, "V", (3,), 0.0, 1.0) for name in ("x", "theta"))
    y = ArraySpec("y", "V", (y_size,), -1.0, 1.0)
    return SystemDescription("made up", x, theta, y, 1.0, drives)


def blobs(rows: int = 30) -> Dataset:
    rng = np.random.default_rng(0)
    labels = np.arange(rows) % 3
    features = np.clip(0.2 + 0.3 * labels[:, None] + 0.05 * rng.standard_normal((rows, 4)), 0, 1)
    return Dataset("blobs", features, labels, ("a", "b", "c"), None, "generated")


def fitted() -> FittedTwin:
    error = TwinError(r2=0.5, normalised=0.3, shape_r2=0.4)
    return FittedTwin(OpticsTwin(), "structured", "optics", 0, 120, 220, 0.0, error, None)


class Counting:
    """An apparatus that keeps its devices, to count what they measured."""

    def __init__(self, real: Apparatus) -> None:
        self.devices: list[DeviceMeasure] = []

        def open_device(stream: int, first_row: int) -> DeviceMeasure:
            self.devices.append(real.open_device(stream, first_row))
            return self.devices[-1]

        self.apparatus = Apparatus(real.description, open_device, real.open_oracle)

    @property
    def rows(self) -> int:
        return sum(device.rows for device in self.devices)


def run(
    apparatus: Apparatus, control: Control | None, method: Method = "pat", **changes: object
) -> tuple[TrainResult, Counting, TrainConfig]:
    values = {
        "sentinels": False,
        "epochs": 2,
        "batch": 8,
        "network": NETWORK,
        "method": method,
        "control": control,
    }
    config = TrainConfig.model_validate({**values, **changes})
    counting = Counting(apparatus)
    return train(config, blobs(), fitted(), counting.apparatus), counting, config


# what each control leaves out


@pytest.mark.parametrize("control", ["identity", "identity_clamped"])
def test_without_physics_nothing_is_measured(apparatus: Apparatus, control: Control) -> None:
    result, counting, config = run(apparatus, control, checks=2, test_span_s=100.0)
    assert counting.rows == result.rows == result.test_rows == 0
    assert rows_to_measure(config, blobs()) == 0
    assert result.clamped_fraction is result.twin_error_task is result.spread_accuracy is None
    assert 0 <= result.test_accuracy <= 1
    assert len(result.checks) == 2


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> dict[str, Tensor]:
    """Return the parameters of a run as they are when its training begins."""
    kept: dict[str, Tensor] = {}
    initialise = PhysicalNetwork.initialise

    def keep(network: PhysicalNetwork, features: Tensor) -> None:
        initialise(network, features)
        kept.update({name: value.detach().clone() for name, value in network.named_parameters()})

    monkeypatch.setattr(PhysicalNetwork, "initialise", keep)
    return kept


@pytest.mark.parametrize("micro_batches", [1, 2])
@pytest.mark.parametrize("control", [None, "physics_only", "digital_only"])
def test_frozen_parts_keep_every_bit_and_the_others_learn(
    apparatus: Apparatus, started: dict[str, Tensor], control: Control | None, micro_batches: int
) -> None:
    result, _, _ = run(apparatus, control, "pat-refit", micro_batches=micro_batches)
    frozen = {None: (), "physics_only": ("digital",), "digital_only": ("physical",)}[control]
    kinds = {name: "physical" if name.endswith("theta") else "digital" for name in started}
    assert set(kinds.values()) == {"physical", "digital"}
    for name, before in started.items():
        kept = torch.equal(before, result.network_state[name])
        assert kept == (kinds[name] in frozen), name


def test_a_frozen_matrix_does_not_decay(apparatus: Apparatus, started: dict[str, Tensor]) -> None:
    network = NETWORK.model_validate(
        {**NETWORK.model_dump(), "first": {"kind": "linear", "decay": 1.0}}
    )
    result, _, _ = run(apparatus, "physics_only", network=network)
    assert torch.equal(
        started["encoder.mixing.weight"], result.network_state["encoder.mixing.weight"]
    )


def test_refitting_the_output_changes_the_output_only(apparatus: Apparatus) -> None:
    plain, _, _ = run(apparatus, None, "in-silico")
    refitted, counting, config = run(apparatus, "output_refit", "in-silico")
    output = "blocks.1.after."
    changed = {
        name
        for name, value in plain.network_state.items()
        if not torch.equal(value, refitted.network_state[name])
    }
    assert changed
    assert all(name.startswith(output) for name in changed)
    trained = refitted.train_images
    assert refitted.ledger["output_refit"] == trained * config.rows_a_sample
    assert counting.rows == rows_to_measure(config, blobs())


def test_the_output_is_refitted_on_at_most_so_many_samples(
    apparatus: Apparatus, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (lab.budget, lab.trainer):
        monkeypatch.setattr(module, "OUTPUT_SAMPLES", 7)
    result, counting, config = run(apparatus, "output_refit", "in-silico")
    assert result.ledger["output_refit"] == 7 * config.rows_a_sample
    assert counting.rows == rows_to_measure(config, blobs())


@pytest.mark.parametrize("control", CONTROLS)
def test_a_control_says_that_it_is_one(apparatus: Apparatus, control: Control) -> None:
    method: Method = "in-silico" if control == "output_refit" else "pat"
    result, _, _ = run(apparatus, control, method, epochs=1)
    assert result.control == control
    assert result.as_dict()["control"] == control


# the identity itself


def test_identity_of_channels_is_their_mean_and_of_series_their_sum() -> None:
    x, theta = torch.tensor([[0.2, 0.9, 0.0]]), torch.tensor([[0.4, 0.9, 0.1]])
    channels = IdentityPhysics(description(), clamped=False)(x, theta)
    torch.testing.assert_close(channels, torch.tensor([[0.3, 0.9, 0.05]]))
    series = IdentityPhysics(description("series"), clamped=False)(x, theta)
    torch.testing.assert_close(series, torch.tensor([[0.1, 1.3, -0.4]]))
    clamped = IdentityPhysics(description("series"), clamped=True)(x, theta)
    torch.testing.assert_close(clamped, torch.tensor([[0.1, 1.0, 0.0]]))


def test_identity_is_linear_also_where_the_network_leaves_the_range(apparatus: Apparatus) -> None:
    """Not with the clamp, which is a nonlinearity of its own."""
    x, theta = torch.full((1, 3), 2.0), torch.full((1, 3), -1.0)
    y = IdentityPhysics(description("channels", 5), clamped=False)(x, theta)
    torch.testing.assert_close(y, torch.full((1, 5), 0.5))
    seen: list[bool] = []

    class Spy(IdentityPhysics):
        def forward(self, x: Tensor, theta: Tensor) -> Tensor:
            seen.append(bool(((x < 0) | (x > 1)).any()))
            return super().forward(x, theta)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lab.methods.IdentityPhysics", Spy)
        for control in ("identity", "identity_clamped"):
            seen.clear()
            run(apparatus, control, rate_theta=1.0, rate_digital=1.0)
            assert any(seen) == (control == "identity")


# what is clamped


def test_clamped_values_are_those_at_either_end() -> None:
    count = ClampCount(description())
    assert count.fraction is None
    count.add(torch.tensor([[0.0, 0.5, 1.0]]), torch.tensor([[0.1, 0.2, 0.3]]))
    assert count.fraction == pytest.approx(2 / 6)
    count.add(torch.full((1, 3), 0.5), torch.full((1, 3), 0.5))
    assert count.fraction == pytest.approx(2 / 12)


def test_of_series_the_played_sum_counts() -> None:
    count = ClampCount(description("series"))
    # the sums are 1, 0.5 and 0: two at the ends, though neither x nor theta is
    count.add(torch.tensor([[0.75, 0.5, 0.25]]), torch.tensor([[0.75, 0.5, 0.25]]))
    assert count.fraction == pytest.approx(2 / 3)
    count.add(torch.tensor([[1.0, 0.0, 0.5]]), torch.tensor([[0.2, 0.8, 0.5]]))
    assert count.fraction == pytest.approx(2 / 6)


def test_refitting_lowers_the_loss_on_what_was_measured() -> None:
    features = torch.rand(60, 4, generator=torch.Generator().manual_seed(0))
    labels = (features[:, 0] > 0.5).long()
    network = build_network(
        lambda x, theta: x * theta,
        nn.Identity(),
        NetworkConfig(layers=1, last=({"kind": "windows", "margin": 0, "weighted": True},)),
        features=4,
        x_size=8,
        theta_size=8,
        y_size=8,
        classes=2,
        seed=0,
    )
    network.initialise(features)
    with torch.no_grad():
        before = nn.functional.cross_entropy(network(features), labels)
    lab.controls.refit_output(network, features, labels, steps=200)
    with torch.no_grad():
        after = nn.functional.cross_entropy(network(features), labels)
    assert float(after) < 0.8 * float(before)
