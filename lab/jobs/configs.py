"""What a user writes of jobs: those that look at a device (calibrate, evaluate), and compare.

Imports neither torch nor drivers.
"""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from lab.comparison.plan import Sweep

ROUND_ROWS = 16
"""Rows of one round of a calibration, see `lab.calibration`."""
FEWEST_ROUNDS = 8
"""Fewer cannot tell a change from the scatter between them."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class CalibrateConfig(_Strict):
    """One calibration of a system; the body of `POST /api/v1/calibrations`.

    rows: measure at most so many, in whole rounds of 16. name: under which it is known; default:
    calibrate-JOB. apply: whether it becomes the calibration in force. wait_s: a simulated device
    is so much older than at the end of the last calibration, s; nobody waits, and a real one does
    not care. seed: of the noise stream of a simulated device. deadline_s: when the job fails,
    seconds since the epoch.
    """

    system: str = "optics"
    rows: int = Field(240, ge=ROUND_ROWS * FEWEST_ROUNDS, le=100_000)
    name: str = Field("", max_length=200)
    apply: bool = True
    wait_s: float = Field(0.0, ge=0, allow_inf_nan=False)
    seed: int = Field(0, ge=0, lt=2**31)
    priority: int = Field(0, ge=-100, le=100)
    deadline_s: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None

    @property
    def rounds(self) -> int:
        """Get how many rounds are measured."""
        return self.rows // ROUND_ROWS


class EvaluateConfig(_Strict):
    """One test of a trained network on its device as it is now; body of `POST /api/v1/evaluations`.

    job: the training job that succeeded. system: the one that it trained on, which is the default.
    samples: so many of the job's test samples, drawn by the seed; None: all. wait_s: a simulated
    device is so much older than at the end of the training, s; nobody waits, and a real one does
    not care. span_s: spread the test over so much simulated time. seed: of the noise stream, so
    that tests of one network need not have the same noise. deadline_s: as in `CalibrateConfig`.
    """

    job: str = Field(min_length=1, max_length=64)
    system: str = ""
    samples: int | None = Field(None, ge=1)
    wait_s: float = Field(0.0, ge=0, allow_inf_nan=False)
    span_s: float = Field(0.0, ge=0, allow_inf_nan=False)
    seed: int = Field(0, ge=0, lt=2**31)
    priority: int = Field(0, ge=-100, le=100)
    deadline_s: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None


class CompareConfig(Sweep):
    """One comparison of training methods that share a twin; the body of `POST /comparisons`.

    Fields as in `Sweep`. It fits a twin for each of twin_rows and trains with every method and
    seed on it; each of these parts is a job of its own, with this priority and deadline.
    deadline_s: as in `CalibrateConfig`.
    """

    priority: int = Field(0, ge=-100, le=100)
    deadline_s: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
