"""The guard in front of every simulated instrument that speaks over sockets."""

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from driving import LIMIT_S, driving
from lab.bench_config import load_bench
from served import served_bench

ROOT = Path(__file__).parents[3]


@pytest.mark.skipif(sys.platform != "linux", reason="signals and fork of Linux")
@pytest.mark.parametrize("name", ["bench", "bench-redpitaya"])
def test_after_a_kill_in_a_pass_every_instrument_is_safe(
    tmp_path: Path, name: str, until: Callable[..., None], report: Callable[[Path], str]
) -> None:
    with served_bench(load_bench(ROOT / f"{name}.toml")) as (bench, rigs):
        instruments = [
            rigs[rig].instruments[instrument]
            for part in load_bench(ROOT / f"{name}.toml").instruments.values()
            for rig, instrument in [part.address.removeprefix("mock://").split("/")]
        ]
        with driving(bench, "in a pass", tmp_path / "log") as (process, _):
            until(lambda: not all(i.safe for i in instruments))
            os.kill(process.pid, signal.SIGKILL)
            process.join(LIMIT_S)
            told = report(tmp_path / "log")
            assert all(i.safe for i in instruments)
    assert told.count(": safe") == len(instruments), told
