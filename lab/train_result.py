"""What a training run tells: its learning curve and its outcome."""

from dataclasses import asdict, dataclass, field
from typing import Any

from torch import Tensor

from lab.auditing import AuditPoint
from lab.watching import DriftPoint

_LISTS = ("curve", "checks", "audits", "drifts")


@dataclass(frozen=True)
class EpochMetric:
    """One point of the learning curve; accuracy is that of the training batches since the last.

    step, of: training steps done, and all of them. rows: hardware rows so far; seconds: since the
    run began; penalty: range penalty, unweighted; refits_accepted and refits_rolled_back: gates
    passed and failed so far (pat-refit).
    """

    epoch: int
    step: int
    of: int
    loss: float
    accuracy: float
    penalty: float
    rows: int
    seconds: float
    refits_accepted: int = 0
    refits_rolled_back: int = 0


@dataclass(frozen=True)
class Check:
    """The accuracy on the validation rows, measured on the device during the training.

    rows: those of initialisation and training so far, without the checks' own.
    """

    step: int
    rows: int
    accuracy: float


@dataclass(frozen=True)
class TrainResult:
    """The outcome of a training run; accuracies from 0 to 1.

    test_accuracy: on the device. twin_accuracy: what in-silico training believes, on its own twin.
    spread_accuracy: on the device, the test spread over `test_span_s` of simulated time; None where
    that is 0. baseline: logistic regression on the same split. confusion[i][j]: test samples of
    class i taken for class j. micro_batches: parts of a training step, as given or chosen. rows:
    hardware rows of training and initialisation; test_rows: of the test; ledger: all hardware rows
    by what they were for. clamped_fraction: share of the test's drive values at the ends of their
    range; twin_error_task: the twin's normalised error on drives of the test, all layers.
    spectrum: the last layer's output for the first test sample, measured and as the twin predicts.
    """

    method: str
    control: str | None
    seed: int
    classes: tuple[str, ...]
    test_accuracy: float
    twin_accuracy: float | None
    spread_accuracy: float | None
    baseline: float
    confusion: list[list[int]]
    curve: list[EpochMetric]
    checks: list[Check]
    audits: list[AuditPoint]
    drifts: list[DriftPoint]
    micro_batches: int
    rows: int
    test_rows: int
    ledger: dict[str, int]
    path: str
    train_images: int
    clamped_fraction: float | None
    twin_error_task: float | None
    seconds: float
    instrument_hours: float
    spectrum: dict[str, list[float]]
    twin_digest: str
    network_state: dict[str, Tensor] = field(repr=False)
    twin_state: dict[str, Tensor] = field(repr=False)

    def as_dict(self) -> dict[str, Any]:
        """Return everything but the tensors, as plain data."""
        plain = {k: v for k, v in self.__dict__.items() if not k.endswith("_state")}
        lists = {name: [asdict(m) for m in getattr(self, name)] for name in _LISTS}
        return {**plain, **lists}
