"""What a user writes of a training: the config, a JSON body. The bench is `lab.bench_config`'s.

Imports neither torch nor drivers, so that the client and the command line start fast.
"""

import re
from typing import Annotated, Literal, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from lab.network_config import NetworkConfig

Method = Literal[
    "pat",
    "pat-refit",
    "in-silico",
    "in-silico-noise",
    "ideal",
    "dfa",
    "spsa",
    "pepg",
    "pat-sharpness",
    "phyll",
]
METHODS: tuple[Method, ...] = get_args(Method)
DIGITAL_METHODS: tuple[Method, ...] = ("in-silico", "in-silico-noise")  # the test apart
TWIN_FREE_METHODS: tuple[Method, ...] = ("spsa", "pepg", "phyll")  # a twin is only compared
PRIORITIES = (-100, 100)
TASKS = ("vowels", "vowels12", "digits", "mnist", "mnist28")
UPLOAD_BYTES = 64 * 2**20  # of a data set that a service takes
Split = Literal["random", "talker"]
Holdout = Literal["test", "validation"]
TwinKind = Literal["structured", "filter", "neural"]
MeasurePath = Literal["wire", "plant"]
Control = Literal["identity", "identity_clamped", "output_refit", "physics_only", "digital_only"]
CONTROLS: tuple[Control, ...] = get_args(Control)

_OWN_TASK = re.compile(r"file:.+|upload:[0-9a-f]{16}")


def _known_task(task: str) -> str:
    if task not in TASKS and not _OWN_TASK.fullmatch(task):
        raise ValueError(
            f"task '{task}': there are {', '.join(TASKS)}; data of your own are upload:ID, of 16 "
            "hexadecimal digits (pnnlab upload), or file:PATH on the machine of the command"
        )
    return task


Task = Annotated[str, AfterValidator(_known_task)]
"""What to train on: one of TASKS, an upload of a service's, or a file on this machine."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class TwinConfig(_Strict):
    """Which digital twin: an existing one by id, or one fitted on `rows` measured rows."""

    id: str | None = None
    kind: TwinKind = "structured"
    rows: int = Field(300, ge=20, le=1_000_000)
    seed: int = Field(0, ge=0, lt=2**31)


class TrainConfig(_Strict):
    """One training job; the body of `POST /api/v1/jobs` is this, as JSON.

    What is left out is chosen by what works for the system and the task (`lab.recipes`).

    quick: a smaller run, for a look. train_images, test_images: so many of the training and test
    samples, drawn by the seed; None: all. rows: end the
    training when it has measured so many rows on the hardware, instead of after `epochs`; methods
    that measure nothing take as many steps as physics-aware training would.
    micro_batches: parts of a training step that overlap, at most one a sample; "auto" measures what
    is quickest. A method that does not measure in training has always 1.
    rate_theta, rate_digital: Adam's learning rates of the physical and of the digital parameters,
    reached after `warmup` steps and then lowered to 0 along a cosine. penalty: weight of leaving
    the physical range. initial_rows: training samples that set the initial scales.
    control: a deliberately crippled run, to see which part does the work (`lab.controls`).
    checks: so many times in training measure the accuracy on the validation rows, which are then
    left out of the training. audit: compare the twin's gradient with probes of the measured loss,
    for at most 2 % of the training's rows beside them (`lab.audit`). sentinels: measure a few fixed
    rows again and again, about 1 % beside the training's, and tell when the device changes.
    holdout: what the accuracy is measured on. "validation" trains without the validation rows
    and tests on these, so that settings can be chosen without a look at the test rows.
    test_span_s: test a second time, spread over so much simulated time, as the device drifts.
    path: "plant" measures a simulated system without driver and wire, to the same bits.
    checkpoint_s: of a service: so often the run is kept in a file from which it can go on, seconds;
    it may go on with other epochs, rows or rates (`lab.continuing`).
    deadline_s: when the result is of no more use, seconds since the epoch; the job fails then.
    """

    system: str = "optics"
    task: Task = "vowels"
    method: Method = "pat-refit"
    seed: int = Field(0, ge=0, lt=2**31)
    split: Split = "random"
    quick: bool = False
    train_images: int | None = Field(None, ge=2)
    test_images: int | None = Field(None, ge=1)
    epochs: int = Field(60, ge=1, le=10_000)
    rows: int | None = Field(None, ge=1)
    batch: int = Field(32, ge=1, le=10_000)
    micro_batches: Annotated[int, Field(ge=1, le=64)] | Literal["auto"] = "auto"
    rate_theta: float = Field(0.03, gt=0, le=1)
    rate_digital: float = Field(0.05, gt=0, le=1)
    warmup: int = Field(0, ge=0, le=100_000)
    penalty: float = Field(5.0, ge=0)
    initial_rows: int = Field(256, ge=2)
    control: Control | None = None
    checks: int = Field(0, ge=0, le=1000)
    audit: bool = True
    sentinels: bool = True
    holdout: Holdout = "test"
    test_span_s: float = Field(0.0, ge=0, allow_inf_nan=False)
    path: MeasurePath = "wire"
    checkpoint_s: float = Field(20.0, ge=0, allow_inf_nan=False)
    network: NetworkConfig = NetworkConfig()
    twin: TwinConfig = TwinConfig()
    priority: int = Field(0, ge=PRIORITIES[0], le=PRIORITIES[1])
    deadline_s: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None

    @model_validator(mode="after")
    def _samples_suffice(self) -> "TrainConfig":
        if self.micro_batches != "auto" and self.micro_batches > self.batch:
            raise ValueError(
                f"micro_batches: {self.micro_batches} parts of a batch of {self.batch} samples"
            )
        return self

    @property
    def rows_a_sample(self) -> int:
        """Get how many hardware rows one sample takes on its way through the network."""
        return self.network.layers * self.network.parallel
