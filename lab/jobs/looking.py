"""What jobs compute that look at a device and change nothing: calibrate, evaluate.

They are short: one that was interrupted starts from its beginning, with the same row keys.
"""

from collections.abc import Callable
from typing import Any

from lab.apparatus import Apparatus
from lab.calibration import calibrate, rows_to_calibrate
from lab.config import TrainConfig
from lab.datasets import Dataset
from lab.errors import Conflict
from lab.jobs.configs import CalibrateConfig, EvaluateConfig
from lab.jobs.desk import Assignment, Desk
from lab.jobs.desk_files import DeskFiles
from lab.jobs.state_files import checkpoint_file, load_state
from lab.retest import Trained, evaluate, rows_to_evaluate
from lab.twins import new_twin
from twins.base import frozen


def calibrate_at(
    desk: Desk, assignment: Assignment, config: CalibrateConfig, apparatus: Apparatus
) -> dict[str, Any]:
    """Calibrate, and compare with the last one."""
    if assignment.rows is None:
        raise ValueError("a calibration was given no rows")
    desk.go_back(0, 0)
    desk.plan_rows(rows_to_calibrate(config))
    desk.start_pace()
    found = calibrate(
        config,
        assignment.rows,
        apparatus,
        before=assignment.before,
        on_metric=desk.metric,
        stop=desk.stopped,
    )
    return found.as_dict()


def evaluate_at(
    desk: Desk,
    assignment: Assignment,
    config: EvaluateConfig,
    apparatus: Apparatus,
    load: Callable[[str], Dataset],
) -> dict[str, Any]:
    """Test a trained network."""
    desk.go_back(0, 0)
    trained = _trained(desk, assignment, config)
    dataset = load(trained.config.task)
    desk.plan_rows(rows_to_evaluate(config, trained.config, dataset))
    desk.start_pace()
    found = evaluate(config, trained, dataset, apparatus, on_metric=desk.metric, stop=desk.stopped)
    return found.as_dict()


def _trained(desk: Desk, assignment: Assignment, config: EvaluateConfig) -> Trained:
    if assignment.trained is None:
        raise Conflict(f"job {config.job} has no result")
    folder, _, name = checkpoint_file(config.job).rpartition("/")
    state = load_state(DeskFiles(desk, folder), name)
    twin = new_twin(assignment.description, assignment.family, state["twin_kind"])
    twin.load_state_dict(state["twin"])
    return Trained(
        job=config.job,
        config=TrainConfig.model_validate(state["config"]),
        classes=tuple(state["classes"]),
        network=state["network"],
        twin=frozen(twin),
        result=assignment.trained,
    )
