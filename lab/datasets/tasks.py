"""The tasks by name."""

import os
from pathlib import Path

from lab.config import TASKS, Task
from lab.datasets.base import Dataset
from lab.datasets.digits import load_digits
from lab.datasets.mnist import load_mnist
from lab.datasets.own import FILE, UPLOAD, DatasetInfo, load_file, load_upload
from lab.datasets.vowels import ALL_VOWELS, VOWELS, load_vowels, load_vowels12
from lab.errors import DataError, UnknownName
from lab.jobs.files import Files

_DIGITS = tuple("0123456789")
PUBLISHED = (
    DatasetInfo("vowels", "vowels", 259, 12, VOWELS, None, talkers=True),
    DatasetInfo("vowels12", "vowels12", 1597, 12, ALL_VOWELS, None, talkers=True),
    DatasetInfo("digits", "digits", 1797, 49, _DIGITS, None, talkers=False),
    DatasetInfo("mnist", "mnist", 70_000, 196, _DIGITS, 10_000, talkers=False),
    DatasetInfo("mnist28", "mnist28", 70_000, 784, _DIGITS, 10_000, talkers=False),
)
"""What the tasks of `lab.config.TASKS` hold; their files are not read for it."""


def load(
    task: Task,
    *,
    folder: Path | str | None = None,
    base_url: str | None = None,
    cache: Path | str | None = None,
    uploads: Files | None = None,
) -> Dataset:
    """Return the data of a task: one of `lab.config.TASKS`, `file:PATH` or `upload:ID`.

    folder:   where the files are; default: the environment variable PNNLAB_DATA.
    base_url: where to download them without a folder; default: PNNLAB_DATA_URL, else the
              public address of each (untried).
    cache:    where a download is kept; default: the user's cache folder.
    uploads:  where a service keeps uploads; without it, there are none here.

    Raises UnknownName for another task, DataError for files that are missing, truncated,
    altered, out of reach or not what is asked of a user's own arrays.
    """
    if task.startswith(FILE):
        return load_file(Path(task.removeprefix(FILE)))
    if task.startswith(UPLOAD):
        if uploads is None:
            raise DataError(f"task '{task}': an upload is known to the service that has it")
        return load_upload(uploads, task)
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
    raise UnknownName(
        f"task '{task}': there are {', '.join(TASKS)}, or a file of your own, file:PATH"
    )


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
