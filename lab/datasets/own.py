"""A user's own data sets: local files, and uploads that a service keeps by their content."""

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path

from lab.datasets.array_files import check_size, read_arrays
from lab.datasets.arrays import build_dataset
from lab.datasets.base import Dataset
from lab.errors import DataError, UnknownName
from lab.jobs.files import Files

ID_LENGTH = 16  # hexadecimal digits of the content's sha256
UPLOAD = "upload:"
UPLOADS = "datasets"  # folder of the uploads among the service's files
FILE = "file:"
_INFO = ".json"


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


def load_file(path: Path) -> Dataset:
    """Read and check a local npz or CSV file; raise DataError that names it and the reason."""
    try:
        check_size(path.stat().st_size, str(path))
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    return build_dataset(read_arrays(content, str(path)), path.name, str(path))


def keep_upload(uploads: Files, content: bytes, name: str) -> DatasetInfo:
    """Check an npz or CSV file and keep it; the same content is kept once, under its last name.

    Raises DataError that names `name` and the reason; nothing is kept then.
    """
    dataset = build_dataset(read_arrays(content, name), name, name)
    digest = hashlib.sha256(content).hexdigest()[:ID_LENGTH]
    info = _info(f"{UPLOAD}{digest}", dataset)
    uploads.write(_content_file(digest), content)
    # the description last: an upload is there when this is
    uploads.write(_info_file(digest), json.dumps(asdict(info)).encode())
    return info


def find_upload(uploads: Files, task: str) -> DatasetInfo:
    """Return what is known of an upload; raise UnknownName."""
    digest = task.removeprefix(UPLOAD)
    try:
        return _read_info(uploads, _info_file(digest))
    except FileNotFoundError:
        raise UnknownName(f"task '{task}': this service has no such upload") from None


def list_uploads(uploads: Files) -> list[DatasetInfo]:
    """List the uploads, by name."""
    return sorted(
        (_read_info(uploads, name) for name in uploads.names() if name.endswith(_INFO)),
        key=lambda info: (info.name, info.task),
    )


def load_upload(uploads: Files, task: str) -> Dataset:
    """Return the data of an upload; raise UnknownName, or DataError for an altered file."""
    info = find_upload(uploads, task)
    digest = task.removeprefix(UPLOAD)
    name = _content_file(digest)
    try:
        content = uploads.read(name)
    except OSError as error:
        raise DataError(f"{name}: cannot be read ({error.strerror or error})") from error
    if hashlib.sha256(content).hexdigest()[:ID_LENGTH] != digest:
        raise DataError(f"{name}: altered, its sha256 does not begin with {digest}")
    return build_dataset(read_arrays(content, info.name), info.name, info.name)


def _content_file(digest: str) -> str:
    return f"{digest}.data"


def _info_file(digest: str) -> str:
    return f"{digest}{_INFO}"


def _read_info(uploads: Files, name: str) -> DatasetInfo:
    fields = json.loads(uploads.read(name))
    return DatasetInfo(**{**fields, "classes": tuple(fields["classes"])})


def _info(task: str, dataset: Dataset) -> DatasetInfo:
    rows, features = dataset.features.shape
    test_rows = None if dataset.test_idx is None else len(dataset.test_idx)
    talkers = dataset.groups is not None
    return DatasetInfo(task, dataset.name, rows, features, dataset.classes, test_rows, talkers)
