"""Keep a trained network on a device that changes: sentinels look, a drift event is followed."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from lab.measure import DeviceMeasure
from lab.models import PhysicalNetwork
from lab.refit import OnlineRefit, RefitSettings
from lab.rematch import remember
from lab.sentinels import DriftEvent, Sentinels, SentinelSettings, reference_rows
from lab.stages import brightness_free
from lab.tending import TendSettings, tend, tuner
from twins.base import DigitalTwin


@dataclass(frozen=True)
class KeepSettings:
    """How to keep a network.

    samples: training samples that are measured after a drift event; random_rows: of the sentinels,
    beside one row of each layer. The sentinels' limit is low, as a false alarm costs rows and no
    accuracy; the refit remembers three tendings of five layers: older rows are of another device.
    """

    samples: int = 100
    random_rows: int = 2
    tend: TendSettings = field(default_factory=TendSettings)
    watch: SentinelSettings = field(
        default_factory=lambda: SentinelSettings(looks=4, slack=0.5, limit=4.0)
    )
    refit: RefitSettings = field(
        default_factory=lambda: RefitSettings(batch=64, memory=15, kept=100)
    )


class Keeper:
    """Watch one network's device, and tend the network in place after a drift event."""

    def __init__(
        self,
        network: PhysicalNetwork,
        twin: DigitalTwin,
        device: DeviceMeasure,
        features: Tensor,
        labels: Tensor,
        *,
        seed: int,
        settings: KeepSettings | None = None,
    ) -> None:
        """Measure how the network is now: features (samples, n), labels (samples,) of its training.

        twin is refitted in place. Costs a row of each sample and layer, and the sentinels' looks.
        """
        self.settings = s = settings or KeepSettings()
        self._network, self._device = network, device
        self._features, self._labels = features, labels
        self._refit = OnlineRefit(twin, device, seed=seed, settings=s.refit)
        self._optimiser = tuner(network, s.tend)
        self._generator = torch.Generator().manual_seed(seed)
        network.set_measure(device)
        self._wanted = remember(network, features)
        self._sentinels = self._new_sentinels(twin)
        self._pending: DriftEvent | None = None

    @property
    def rows_a_look(self) -> int:
        """Get the rows of a look of the sentinels."""
        return self.settings.random_rows + len(self._network.layers)

    @property
    def rows_to_tend(self) -> int:
        """Get the rows of tending once, the sentinels' new reference with it."""
        samples = min(self.settings.samples, len(self._features))
        looks = 1 + self.settings.watch.looks
        return samples * len(self._network.layers) + looks * self.rows_a_look

    def look(self, rows_left: float) -> DriftEvent | None:
        """Look once; tend, and return the event, if one waits and so many rows suffice for it."""
        event = self._sentinels.look()
        self._pending = self._pending or event
        if self._pending is None or self.rows_a_look + self.rows_to_tend > rows_left:
            return None
        self._tend()
        event, self._pending = self._pending, None
        return event

    def _tend(self) -> None:
        self._sentinels.arm()  # before the tending: what drifts meanwhile shows, too
        order = torch.randperm(len(self._features), generator=self._generator)
        pick = order[: self.settings.samples]
        self._network.set_measure(self._device)
        now = tend(
            self._network,
            self._refit,
            self._features[pick],
            self._labels[pick],
            [wanted[pick] for wanted in self._wanted],
            self._optimiser,
            self.settings.tend,
        )
        for wanted, new in zip(self._wanted, now, strict=True):
            wanted[pick] = new

    def _new_sentinels(self, twin: DigitalTwin) -> Sentinels:
        """Watch random rows, and what each layer gets for one training sample; armed."""
        seen: list[tuple[Tensor, Tensor]] = []

        def note(x: Tensor, theta: Tensor) -> Tensor:
            seen.append((x, theta))
            return self._device(x, theta)

        self._network.set_measure(note)
        with torch.no_grad():
            self._network(self._features[:1])
        self._network.set_measure(self._device)
        task = (torch.cat([x for x, _ in seen]), torch.cat([theta for _, theta in seen]))
        sentinels = Sentinels(
            self._device,
            twin,
            reference_rows(self._device.description, self.settings.random_rows, seed=0, task=task),
            clock=lambda: self._device.time_s,
            read=brightness_free,
            settings=self.settings.watch,
        )
        sentinels.arm()
        return sentinels
