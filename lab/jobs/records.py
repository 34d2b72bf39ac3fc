"""What is kept of jobs and twins: plain values that the store, the jobs and the service share.

Imports neither torch nor drivers.
"""

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from lab.config import Task, TwinConfig, TwinKind

JobKind = Literal["train", "fit", "calibrate", "evaluate", "compare"]
JobState = Literal["pending", "running", "paused", "succeeded", "failed", "cancelled", "unknown"]
ENDED: frozenset[JobState] = frozenset({"succeeded", "failed", "cancelled", "unknown"})
STOPPED: frozenset[JobState] = frozenset({"paused", "failed", "cancelled", "unknown"})
"""From these a job can be continued."""
ACTIVE: frozenset[JobState] = frozenset({"pending", "running"})
Wish = Literal["", "pause", "cancel", "cancel at once"]
"""What a job that runs has been asked for and has not done yet."""
WISHES: tuple[Wish, ...] = ("", "pause", "cancel", "cancel at once")
"""Each outdoes those before it."""

Tag = Annotated[str, StringConstraints(pattern=r"^[\w.:+-]{1,64}$")]


class FitConfig(BaseModel):
    """One fit of a digital twin; the body of `POST /api/v1/twins`.

    rows: measured rows of the fit. task: where given, the twin's error on that task's encoded
    samples is reported too. deadline_s: when the job fails, seconds since the epoch.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    system: str = "optics"
    kind: TwinKind = "structured"
    rows: int = Field(300, ge=20, le=1_000_000)
    seed: int = Field(0, ge=0, lt=2**31)
    task: Task | None = None
    priority: int = Field(0, ge=-100, le=100)
    deadline_s: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None

    @property
    def twin(self) -> TwinConfig:
        """Get the twin's part of this request."""
        return TwinConfig(kind=self.kind, rows=self.rows, seed=self.seed)


@dataclass(frozen=True)
class Order:
    """What a client asks for beside a job's config.

    client: whose rows it measures. key: an idempotency key: the same key answers with the same
    job. tags: for its user to find it by. origin: where it comes from, if from no client: "schedule
    NAME, tick TIME", "rerun of JOB", "part of JOB". parent: the comparison that it is a part of.
    """

    client: str = "local"
    key: str | None = None
    tags: tuple[str, ...] = ()
    origin: str = ""
    parent: str | None = None


@dataclass(frozen=True)
class JobEstimate:
    """How far a job is; times are seconds since the epoch, None where nothing is known.

    rows_done, rows_planned: measured rows so far and in all, with those of its twin and its test;
    None before the job has looked at its data. start_s: when it started, or a worker should be
    free for it. finish_s: when its last row should be measured, at its pace in training so far.
    """

    rows_done: int
    rows_planned: int | None
    start_s: float | None
    finish_s: float | None


@dataclass(frozen=True)
class JobRecord:
    """One job as it is stored; times are seconds since the epoch.

    config: what it was submitted with, by its kind. client, tags, origin, parent: see Order. host:
    which one runs it, or ran it last. run: how many times it was started or continued. attempt:
    how many times a process has begun to work on it; one that works on an older attempt may not
    write any more. wish: what it has been asked for and has not done yet. error: why it failed, was
    paused, was or is being cancelled, or is unknown, else empty. last_step: the number of its
    newest metric, 0 for none. continued_s: when somebody last had it continued. estimate: while it
    is pending or running, in the process that runs it; it is not stored.
    """

    id: str
    kind: JobKind
    state: JobState
    config: dict[str, Any]
    client: str
    error: str
    created_s: float
    started_s: float | None
    finished_s: float | None
    last_step: int
    tags: tuple[str, ...] = ()
    origin: str = ""
    parent: str | None = None
    host: str = ""
    queue: str = ""
    run: int = 1
    attempt: int = 0
    wish: Wish = ""
    continued_s: float | None = None
    estimate: JobEstimate | None = None

    @property
    def ended(self) -> bool:
        """Say whether the state is final."""
        return self.state in ENDED

    @property
    def standing(self) -> str:
        """Get its state with its verb: "is running", "has succeeded"."""
        return f"{'has' if self.state in ('succeeded', 'failed') else 'is'} {self.state}"


@dataclass(frozen=True)
class MetricRecord:
    """One metric of a job; step counts the job's metrics from 1."""

    step: int
    metric: dict[str, Any]


@dataclass(frozen=True)
class TwinRecord:
    """A fitted twin.

    job: the job that fitted it. bench: digest of the bench configuration it was fitted on.
    report: `FittedTwin.report()`, and the task_name and task_split that its task error belongs to
    (None where it has none).
    """

    id: str
    system: str
    kind: TwinKind
    rows: int
    seed: int
    job: str
    bench: str
    created_s: float
    report: dict[str, Any]
