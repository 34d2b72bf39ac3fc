"""The tasks by name."""

import os
from pathlib import Path

from lab.config import TASKS, Task
from lab.datasets.base import Dataset
from lab.datasets.digits import load_digits
from lab.datasets.mnist import load_mnist
from lab.datasets.vowels import load_vowels, load_vowels12
from lab.errors import DataError, UnknownName


def load(
    task: Task,
    *,
    folder: Path | str | None = None,
    base_url: str | None = None,
    cache: Path | str | None = None,
) -> Dataset:
    """Return the data of a task, one of `lab.config.TASKS`.

    folder:   where the files are; default: the environment variable PNNLAB_DATA.
    base_url: where to download them without a folder; default: PNNLAB_DATA_URL, else the
              public address of each (untried).
    cache:    where a download is kept; default: the user's cache folder.

    Raises UnknownName for another task, DataError for files that are missing, truncated,
    altered or out of reach.
    """
    if task == "digits":
        return load_digits()
    folder = folder or os.environ.get("PNNLAB_DATA") or None
    base_url = base_url or os.environ.get("PNNLAB_DATA_URL") or None
    if task == "vowels":
        return load_vowels(folder, base_url, cache)
    if task == "vowels12":
        return load_vowels12(folder, base_url, cache)
    if task in ("mnist", "mnist28"):
        return load_mnist(folder, base_url, cache, halved=task == "mnist")
    raise UnknownName(f"task '{task}': there are {', '.join(TASKS)}")


def load_or_fallback(
    *,
    folder: Path | str | None = None,
    base_url: str | None = None,
    cache: Path | str | None = None,
) -> tuple[Dataset, str | None]:
    """Return the vowels and None, else the digits and the reason, in one line.

    Arguments as for `load`.
    """
    try:
        return load("vowels", folder=folder, base_url=base_url, cache=cache), None
    except DataError as error:
        reason = " ".join(str(error).split())
        return load("digits"), f"the vowels are not at hand, so the digits are used: {reason}"
