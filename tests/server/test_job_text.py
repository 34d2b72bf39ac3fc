"""A job as text: what it is, when it ran, and where its numbers come from."""

from pathlib import Path

from lab.bench_config import load_bench
from lab.config import TrainConfig
from lab.provenance import bench_record, provenance
from server.job_text import render

BENCH = load_bench(Path(__file__).parents[2] / "bench.toml")
JOB = {
    "id": "4f1a",
    "kind": "train",
    "state": "succeeded",
    "config": TrainConfig(seed=4).model_dump(mode="json"),
    "client": "ann",
    "error": "",
    "created_s": 1_800_000_000.0,
    "started_s": 1_800_000_001.0,
    "finished_s": None,
}


def test_a_job_is_told_with_its_provenance() -> None:
    software = {
        "code": {"version": "0.1.0", "commit": "c" * 40, "changed": True},
        "packages": {f"package{i}": f"{i}.0" for i in range(7)},
        "python": "3.11.9",
        "platform": "Linux",
        "host": "lab1",
    }
    found = provenance(
        bench_record(BENCH, "text"),
        TrainConfig(seed=4),
        calibrations={"optics": "monday"},
        twins={"t1": "d" * 64},
        software=software,
    )
    attempts = [
        {"attempt": 1, "run": 1, "host": "lab1", "started_s": 1e9, "changed": []},
        {"attempt": 3, "run": 2, "host": "lab2", "started_s": 1e9, "changed": ["numpy 1 → 2"]},
    ]
    lines = render(JOB, {**found, "attempts": attempts}).splitlines()
    assert lines[0] == "job            4f1a  train  succeeded"
    assert "client         ann" in lines
    assert "config         seed = 4" in lines
    assert "config         network.layers = 5" in lines
    assert "code           0.1.0, commit cccccccccccc, changed since" in lines
    assert "host           lab1, Linux, Python 3.11.9" in lines
    assert sum(line.count("package") for line in lines) == 7 + 1  # and the heading
    assert "calibration    optics: monday" in lines
    tried = [line.split(",")[:3] for line in lines if line.startswith("attempt")]
    assert tried == [
        ["attempt        1", " run 1", " on lab1"],
        ["attempt        3", " run 2", " on lab2"],
    ]
    assert lines[-1] == "               since the first: numpy 1 → 2"
    assert "twin           t1, parameters dddddddddddd" in lines
    assert any(line.startswith("bench file     sha256 ") for line in lines)
    assert not any(line.startswith(("error", "finished", "tags")) for line in lines)


def test_a_job_without_provenance_is_told_alone() -> None:
    failed = {**JOB, "state": "failed", "error": "LimitError: too much", "tags": ["a", "b"]}
    text = render(failed)
    assert "error          LimitError: too much" in text.splitlines()
    assert "tags           a, b" in text.splitlines()
    assert "packages" not in text
