"""All that a job leaves, so that two runs of it can be compared, and who watches it."""

import hashlib
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from lab.calls import ServiceError
from lab.client import Client
from lab.recording.reading import open_rows
from victims import LIMIT_S, Lab

Leavings = dict[str, Any]


def leavings(lab: Lab, job: str) -> Leavings:
    """Return all that a job leaves, but for times and random names."""
    client, record = lab.client, lab.client.job(job)
    if record["state"] != "succeeded":
        return {"state": record["state"], "error": record["error"]}
    kept = torch.load(client.checkpoint(job, lab.folder / "network.pt"), weights_only=True)
    metrics = client.metrics(job)
    result = client.result(job)
    return {
        "state": "succeeded",
        "last step": record["last_step"],
        "numbers of the metrics": [m["step"] for m in metrics],
        "metrics": [timeless(m["metric"]) for m in metrics],
        "curve": [timeless(point) for point in result.pop("curve")],
        "result": timeless(result) | {"twin": ""},
        "parameters": {name: value.tolist() for name, value in kept["network"].items()},
        "parameters of the twin": {name: value.tolist() for name, value in kept["twin"].items()},
        "measured rows": _rows(client, lab.folder, job),
        "system": client.system("optics")["status"]["state"],
    }


def timeless(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return the data without how long something took."""
    return {**data, "seconds": 0}


def _rows(client: Client, folder: Path, job: str) -> tuple[int, str]:
    """Return how many rows of a job are recorded, and a digest of them in the order of keys."""
    with TemporaryDirectory(dir=folder) as parent:
        measured = open_rows(client.rows(job, Path(parent, "rows.zarr"))).load()
    order = np.lexsort((measured["index"].values, measured["stream"].values))
    digest = hashlib.sha256()
    for name in ("stream", "index", "time_s", "x", "theta", "y", "saturated"):
        digest.update(measured[name].values[order].tobytes())
    return len(order), digest.hexdigest()


def differences(expected: Leavings, found: Leavings) -> list[str]:
    """Return what is not equal, and what is wrong with the run in peace."""
    wrong = [key for key in {**expected, **found} if expected.get(key) != found.get(key)]
    if found["state"] != "succeeded":
        wrong.append(f"it is {found['state']}: {found['error']}")
    if expected["state"] != "succeeded":
        wrong.append(f"the run in peace is {expected['state']}: {expected['error']}")
    return wrong


class Watcher:
    """Follow a job as a user does, through every loss of its service; see `wrong`."""

    def __init__(self, url: str, job: str) -> None:
        """Follow it from now on."""
        self._url, self._job = url, job
        self._told: list[tuple[int, dict[str, Any]]] = []
        self._ends: list[str] = []
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._follow, name="watcher", daemon=True)
        self._thread.start()

    def wrong(self, found: Leavings) -> list[str]:
        """Return in what it was told something else than what the job leaves."""
        self._thread.join(LIMIT_S)
        wrong = [] if self._error is None else [f"the watcher failed: {self._error}"]
        if self._thread.is_alive():
            wrong.append("the watcher was not told of the end")
        if self._ends != [found["state"]]:
            wrong.append(f"the watcher was told of the ends {self._ends}")
        if found["state"] == "succeeded":
            kept = zip(found["numbers of the metrics"], found["metrics"], strict=True)
            if self._told != list(kept):
                wrong.append("metrics that the watcher was told")
        return wrong

    def _follow(self) -> None:
        limit = time.monotonic() + LIMIT_S
        while not self._ends and time.monotonic() < limit and self._error is None:
            try:
                with Client(self._url) as client:
                    self._listen(client)
            except ServiceError:
                time.sleep(0.05)  # it is down
            except Exception as error:
                self._error = error

    def _listen(self, client: Client) -> None:
        for event in client.watch(self._job, self._told[-1][0] if self._told else 0):
            if event.kind == "metric" and event.step is not None:
                self._told.append((event.step, timeless(event.data)))
            elif event.kind == "end":
                self._ends.append(event.data["state"])
