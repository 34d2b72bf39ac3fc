"""Data that go to a service, and files that come from it."""

import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from numpy.typing import ArrayLike

from lab.calls import PATIENT_TIMEOUT, Calls
from lab.errors import ConfigError
from lab.jobs.data_folder import write_whole
from lab.uploading import read_upload


class DataCalls:
    """Send data sets, fetch rows, metrics and networks; a part of `lab.client.Client`."""

    _calls: Calls

    def datasets(self) -> list[dict[str, Any]]:
        """List the tasks that a config may name: the built-in ones, then the uploads by name."""
        return self._calls.listed("/datasets")

    def upload_dataset(
        self, data: Path | str | Mapping[str, ArrayLike], name: str | None = None
    ) -> dict[str, Any]:
        """Upload a data set and return what the service knows of it; its `task` is for configs.

        data: an npz or CSV file, or the arrays: features (rows, d), labels (rows,), and groups
        and test (rows,) if there are. name: shown in listings; default: the file's, or "arrays".

        Raises ConfigError that says what is wrong with the data, or with their size.
        """
        content, found_name = read_upload(data)
        return self._calls.answer(
            "POST",
            "/datasets",
            params={"name": found_name if name is None else name},
            content=content,
            headers={"Content-Type": "application/octet-stream"},
            timeout=PATIENT_TIMEOUT,
        )

    def recorded(self, job_id: str) -> dict[str, Any]:
        """Say what is recorded of a job's rows: `rows`, `bytes`, and `notes` on what is missing."""
        return self._calls.answer("GET", f"/jobs/{job_id}/recorded")

    def rows(self, job_id: str, path: Path | str) -> Path:
        """Download a job's measured rows so far, for `lab.recording.reading.open_rows`.

        path: a Zarr group, as one file if it ends in .zip, else as a folder, which must not be
        there. Raises UnknownName, or Conflict where there are none.
        """
        target = Path(path)
        if target.suffix == ".zip":
            self._download(f"/jobs/{job_id}/rows", target)
            return target
        if target.exists():
            raise ConfigError(f"{target}: is there already")
        with _written_at(target), _folder_beside(target) as temporary:
            packed = temporary / "rows.zarr.zip"
            self._download(f"/jobs/{job_id}/rows", packed)
            unpacked = temporary / "rows.zarr"
            with zipfile.ZipFile(packed) as file:
                file.extractall(unpacked)
            unpacked.rename(target)
        return target

    def metrics_csv(self, job_id: str, path: Path | str, kind: str | None = None) -> Path:
        """Download a job's metrics so far, of one kind if given, as comma-separated values."""
        chosen = {} if kind is None else {"kind": kind}
        self._download(f"/jobs/{job_id}/metrics.csv", Path(path), params=chosen)
        return Path(path)

    def checkpoint(self, job_id: str, path: Path | str) -> Path:
        """Download a training job's network to `path`; raise UnknownName, Conflict."""
        content = self._calls.call("GET", f"/jobs/{job_id}/checkpoint").content
        write_whole(Path(path), lambda file: file.write(content))
        return Path(path)

    def _download(self, url: str, path: Path, **options: Any) -> None:
        """Write an answer into a file that is whole or not there."""
        patient = {"timeout": PATIENT_TIMEOUT, **options}
        with _written_at(path):
            write_whole(path, lambda file: self._calls.download(url, file, **patient))


@contextmanager
def _written_at(path: Path) -> Iterator[None]:
    """Raise ConfigError where the block cannot write what should stand at `path`."""
    try:
        yield
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written ({error.strerror or error})") from error


@contextmanager
def _folder_beside(path: Path) -> Iterator[Path]:
    """Give a folder that ends with the block, on the disk of `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=path.parent) as name:
        yield Path(name)
