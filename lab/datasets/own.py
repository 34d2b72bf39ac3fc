"""A user's own data sets: local files, and uploads that a service keeps by their content."""

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path

from lab.datasets.array_files import check_size, read_arrays
from lab.datasets.arrays import build_dataset
from lab.datasets.base import Dataset
from lab.errors import DataError, UnknownName
from lab.jobs.data_folder import write_whole

ID_LENGTH = 16  # hexadecimal digits of the content's sha256
UPLOAD = "upload:"
FILE = "file:"


@dataclass(frozen=True)
class DatasetInfo:
    """What is known of a task without reading its data.

    task: what a config names. name: of the file that was uploaded. rows: with the test rows.
    test_rows: those that the publisher holds out, None where each split draws its own. talkers:
    whether the split "talker" can be had.
    """

    task: str
    name: str
    rows: int
    features: int
    classes: tuple[str, ...]
    test_rows: int | None
    talkers: bool


def uploads_folder(folder: Path) -> Path:
    """Return where the uploads lie in a service's data folder."""
    return folder / "datasets"


def load_file(path: Path) -> Dataset:
    """Read and check a local npz or CSV file; raise DataError that names it and the reason."""
    try:
        check_size(path.stat().st_size, str(path))
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    return build_dataset(read_arrays(content, str(path)), path.name, str(path))


def keep_upload(uploads: Path, content: bytes, name: str) -> DatasetInfo:
    """Check an npz or CSV file and keep it; the same content is kept once, under its last name.

    Raises DataError that names `name` and the reason; nothing is kept then.
    """
    dataset = build_dataset(read_arrays(content, name), name, name)
    digest = hashlib.sha256(content).hexdigest()[:ID_LENGTH]
    info = _info(f"{UPLOAD}{digest}", dataset)
    write_whole(_content_file(uploads, digest), lambda file: file.write(content))
    # the description last: an upload is there when this is
    description = json.dumps(asdict(info)).encode()
    write_whole(_info_file(uploads, digest), lambda file: file.write(description))
    return info


def find_upload(uploads: Path, task: str) -> DatasetInfo:
    """Return what is known of an upload; raise UnknownName."""
    digest = task.removeprefix(UPLOAD)
    path = _info_file(uploads, digest)
    try:
        return _read_info(path)
    except FileNotFoundError:
        raise UnknownName(f"task '{task}': this service has no such upload") from None


def list_uploads(uploads: Path) -> list[DatasetInfo]:
    """List the uploads, by name."""
    return sorted(
        (_read_info(path) for path in uploads.glob("*.json")),
        key=lambda info: (info.name, info.task),
    )


def load_upload(uploads: Path, task: str) -> Dataset:
    """Return the data of an upload; raise UnknownName, or DataError for an altered file."""
    info = find_upload(uploads, task)
    digest = task.removeprefix(UPLOAD)
    path = _content_file(uploads, digest)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    if hashlib.sha256(content).hexdigest()[:ID_LENGTH] != digest:
        raise DataError(f"{path}: altered, its sha256 does not begin with {digest}")
    return build_dataset(read_arrays(content, info.name), info.name, info.name)


def _content_file(uploads: Path, digest: str) -> Path:
    return uploads / f"{digest}.data"


def _info_file(uploads: Path, digest: str) -> Path:
    return uploads / f"{digest}.json"


def _read_info(path: Path) -> DatasetInfo:
    fields = json.loads(path.read_text(encoding="utf-8"))
    return DatasetInfo(**{**fields, "classes": tuple(fields["classes"])})


def _info(task: str, dataset: Dataset) -> DatasetInfo:
    rows, features = dataset.features.shape
    test_rows = None if dataset.test_idx is None else len(dataset.test_idx)
    talkers = dataset.groups is not None
    return DatasetInfo(task, dataset.name, rows, features, dataset.classes, test_rows, talkers)
