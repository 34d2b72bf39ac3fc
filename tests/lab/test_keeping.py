"""Keeping a network on a device that changes: looks, drift events, an allowance of rows."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from drivers.row_key import RowKey
from drivers.spec import Array, ArraySpec
from lab.config import NetworkConfig
from lab.keeping import Keeper, KeepSettings
from lab.measure import DeviceMeasure
from lab.models import PhysicalNetwork, build_network
from lab.sentinels import SentinelSettings
from lab.systems.base import SystemDescription, never
from twins.base import DigitalTwin, frozen

SPECS = (ArraySpec(name, "1", (8,), 0.0, 1.0) for name in ("x", "theta", "y"))
DESCRIPTION = SystemDescription("made up", *SPECS, 0.0)
SETTINGS = KeepSettings(samples=48, watch=SentinelSettings())


class Plant:
    """Eight channels with a little noise and a tilt of their gains that may change."""

    def __init__(self) -> None:
        self.tilt, self.noise = 0.0, np.random.default_rng(0)

    def __call__(
        self,
        x: Array,
        theta: Array,
        keys: Sequence[RowKey],
        *,
        depth: int = 0,
        stopped: Callable[[], bool] = never,
    ) -> Array:
        y = response(torch.from_numpy(x), torch.from_numpy(theta)).numpy()
        y = y * (1 + self.tilt * np.linspace(-1, 1, 8))
        return np.asarray(y + 0.002 * self.noise.standard_normal(y.shape))

    def cancel(self) -> None: ...

    def hardware_s(self) -> float:
        return 0.0


class Twin(DigitalTwin):
    """The plant as it was, with gains to learn."""

    kind = "made-up"

    def __init__(self) -> None:
        super().__init__(8, 8, 8)
        self.gain = nn.Parameter(torch.ones(8))

    def forward(self, x: Tensor, theta: Tensor) -> Tensor:
        return response(x, theta) * self.gain


def response(x: Tensor, theta: Tensor) -> Tensor:
    return torch.sigmoid(4 * (x * theta + x.roll(3, 1) - 0.7)) / 2


def kept() -> tuple[Plant, DeviceMeasure, PhysicalNetwork, Keeper, Tensor]:
    """Return a network of two layers that is kept, and its samples."""
    plant, twin = Plant(), frozen(Twin())
    device = DeviceMeasure(DESCRIPTION, plant, stream=0)
    config = NetworkConfig.model_validate(
        {
            "layers": 2,
            "after": ({"kind": "rescale"},),
            "last": ({"kind": "windows", "margin": 1},),
        }
    )
    network = build_network(
        device, twin, config, features=4, x_size=8, theta_size=8, y_size=8, classes=3, seed=0
    )
    features = torch.rand(64, 4, generator=torch.Generator().manual_seed(1))
    network.initialise(features)
    with torch.no_grad():
        labels = network(features).argmax(1)  # what it says now is right
    keeper = Keeper(network, twin, device, features, labels, seed=0, settings=SETTINGS)
    return plant, device, network, keeper, features


def logits(network: PhysicalNetwork, features: Tensor) -> Tensor:
    with torch.no_grad():
        return network(features)


def test_a_device_that_stays_is_only_looked_at() -> None:
    _, device, _, keeper, _ = kept()
    before = device.rows
    assert [keeper.look(1e9) for _ in range(20)] == [None] * 20
    assert device.rows - before == 20 * keeper.rows_a_look == 20 * 4


def test_a_change_is_followed_for_the_stated_rows() -> None:
    plant, device, network, keeper, features = kept()
    before = logits(network, features)
    plant.tilt = 0.3
    drifted = logits(network, features)
    rows, event, looks = device.rows, None, 0
    while event is None:
        event, looks = keeper.look(1e9), looks + 1
    assert looks <= 3
    assert device.rows - rows == looks * keeper.rows_a_look + keeper.rows_to_tend
    agree = (before.argmax(1) == logits(network, features).argmax(1)).double().mean()
    assert agree > 0.9
    assert agree > (before.argmax(1) == drifted.argmax(1)).double().mean()


def test_without_rows_an_event_waits() -> None:
    plant, device, _, keeper, _ = kept()
    plant.tilt = 0.3
    enough = keeper.rows_a_look + keeper.rows_to_tend
    before = device.rows
    assert [keeper.look(enough - 1) for _ in range(5)] == [None] * 5
    assert device.rows - before == 5 * keeper.rows_a_look
    event = keeper.look(enough)
    assert event is not None
    assert event.looks <= 3  # the first look that showed it
