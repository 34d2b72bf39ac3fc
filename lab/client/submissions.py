"""Jobs that a service is to start."""

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from pydantic import BaseModel

from lab.calls import PATIENT_TIMEOUT, Calls
from lab.client.names import checked_key
from lab.config import TrainConfig
from lab.jobs.configs import CalibrateConfig, CompareConfig, EvaluateConfig
from lab.jobs.records import FitConfig

M = TypeVar("M", bound=BaseModel)


class SubmissionCalls:
    """Start jobs, or ask what they would cost; a part of `lab.client.Client`."""

    _calls: Calls

    def submit(
        self,
        config: Mapping[str, Any] | TrainConfig | None = None,
        *,
        dry_run: bool = False,
        key: str | None = None,
        tags: Sequence[str] = (),
        **fields: Any,
    ) -> dict[str, Any]:
        """Start a training job from a config, fields of it, or both; return the job.

        dry_run: start nothing, and return what it would cost: `rows` by purpose, `seconds`, ...
        key: the same key answers with the same job, however often it is asked for. tags: to find it
        by. Raises Conflict where the key belongs to a job with another config.
        """
        return self._submit("/jobs", _body(TrainConfig, config, fields), dry_run, key, tags)

    def fit_twin(
        self,
        config: Mapping[str, Any] | FitConfig | None = None,
        *,
        dry_run: bool = False,
        key: str | None = None,
        tags: Sequence[str] = (),
        **fields: Any,
    ) -> dict[str, Any]:
        """Start a fit (system, kind, rows, seed, task) and return its job.

        The job's result has the twin's id (`twin`) and its `report`. dry_run, key, tags: as in
        `submit`.
        """
        return self._submit("/twins", _body(FitConfig, config, fields), dry_run, key, tags)

    def calibrate(
        self,
        config: Mapping[str, Any] | CalibrateConfig | None = None,
        *,
        dry_run: bool = False,
        key: str | None = None,
        tags: Sequence[str] = (),
        **fields: Any,
    ) -> dict[str, Any]:
        """Start a calibration (system, rows, name, apply, ...) and return its job."""
        return self._submit(
            "/calibrations", _body(CalibrateConfig, config, fields), dry_run, key, tags
        )

    def evaluate(
        self,
        config: Mapping[str, Any] | EvaluateConfig | None = None,
        *,
        dry_run: bool = False,
        key: str | None = None,
        tags: Sequence[str] = (),
        **fields: Any,
    ) -> dict[str, Any]:
        """Start a test of a training job's network (job, samples, ...) and return its job."""
        return self._submit(
            "/evaluations", _body(EvaluateConfig, config, fields), dry_run, key, tags
        )

    def compare(
        self,
        config: Mapping[str, Any] | CompareConfig | None = None,
        *,
        dry_run: bool = False,
        key: str | None = None,
        tags: Sequence[str] = (),
        **fields: Any,
    ) -> dict[str, Any]:
        """Start a comparison (system, task, methods, controls, seeds, ...) and return its job.

        Its parts are jobs of their own: `jobs(parent=job["id"])`. Options as in `submit`.
        """
        return self._submit(
            "/comparisons", _body(CompareConfig, config, fields), dry_run, key, tags
        )

    def rerun(
        self, job_id: str, *, key: str | None = None, tags: Sequence[str] = ()
    ) -> dict[str, Any]:
        """Start the same job again; return the new `job`, and its `differences` in words.

        key: as in `submit`. tags: default: the job's. Raises UnknownName, and what submitting it
        raises.
        """
        return self._submit(f"/jobs/{job_id}/rerun", None, False, key, tags)

    def _submit(
        self,
        path: str,
        body: dict[str, Any] | None,
        dry_run: bool,
        key: str | None,
        tags: Sequence[str],
    ) -> dict[str, Any]:
        options: dict[str, Any] = {"params": {"tag": list(tags)}, "timeout": PATIENT_TIMEOUT}
        if dry_run:
            options["params"]["dry_run"] = "true"
        if key is not None:
            options["headers"] = {"Idempotency-Key": checked_key(key)}
        return self._calls.answer("POST", path, json=body, **options)


def _body(
    kind: type[M], config: Mapping[str, Any] | BaseModel | None, fields: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the JSON body; the service checks it, and says better what is wrong with it."""
    if isinstance(config, BaseModel) and not isinstance(config, kind):
        raise TypeError(f"a {kind.__name__} is needed, not a {type(config).__name__}")
    return {**set_fields(config), **fields}


def set_fields(config: Mapping[str, Any] | BaseModel | None) -> dict[str, Any]:
    """Return what a config sets; what it leaves out the service chooses by system and task."""
    if isinstance(config, BaseModel):
        return config.model_dump(mode="json", exclude_unset=True)
    return dict(config or {})
