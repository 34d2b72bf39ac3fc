"""A run of a comparison whose process is killed once, after its first step forward."""

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lab.comparison.local import train_alone
from lab.comparison.plan import OnProgress, Progress
from lab.config import TrainConfig


def train_killed_once(
    marker: Path, config: TrainConfig, common: bytes, tell: OnProgress, stop: Callable[[], bool]
) -> dict[str, Any]:
    """Train; whoever is first to make the marker a file that is not there dies by SIGKILL."""

    def tell_and_die(progress: Progress) -> None:
        tell(progress)
        try:
            marker.touch(exist_ok=False)
        except FileExistsError:
            return
        os.kill(os.getpid(), signal.SIGKILL)

    return train_alone(config, common, tell_and_die, stop)


def die(
    _config: TrainConfig, _common: bytes, _tell: OnProgress, _stop: Callable[[], bool]
) -> dict[str, Any]:
    os.kill(os.getpid(), signal.SIGKILL)
    return {}
