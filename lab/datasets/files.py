"""Find a published data file: in a folder of the user's, or downloaded once into a cache."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from lab.errors import DataError

CONNECT_TIMEOUT_S = 10.0


@dataclass(frozen=True)
class DataFile:
    """One published file: place under the data folder, address, length in bytes, checksum."""

    path: str
    base_url: str
    size: int
    sha256: str

    @property
    def name(self) -> str:
        """Return the file's own name, without folders."""
        return self.path.rsplit("/", 1)[-1]


def read_file(
    file: DataFile,
    folder: Path | str | None = None,
    base_url: str | None = None,
    cache: Path | str | None = None,
) -> bytes:
    """Return the checked content, from `folder` if one is given, else from `cache`.

    The cache (default: the user's cache folder of pnnlab) is filled once by a download of
    `base_url`/name (default: the file's own public address, which is written down but was never
    tried from here). A folder that lacks the file is an error: no download hides it.

    Raises DataError that says what is missing, truncated, altered or out of reach.
    """
    if folder is None:
        path = _download(file, base_url or file.base_url, cache)
    else:
        path = Path(folder) / file.path
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    _check(file, content, path)
    return content


def _check(file: DataFile, content: bytes, path: Path) -> None:
    if hashlib.sha256(content).hexdigest() == file.sha256:
        return
    if len(content) < file.size:
        raise DataError(f"{path}: truncated, {len(content)} of {file.size} bytes")
    raise DataError(f"{path}: altered, its sha256 is not {file.sha256[:12]}... as published")


def _download(file: DataFile, base_url: str, cache: Path | str | None) -> Path:
    # Imported here because it brings requests, which only a first run needs.
    import pooch

    url = f"{base_url.rstrip('/')}/{file.name}"
    try:
        return Path(
            pooch.retrieve(
                url,
                known_hash=f"sha256:{file.sha256}",
                fname=file.name,
                path=cache or pooch.os_cache("pnnlab"),
                downloader=pooch.HTTPDownloader(timeout=CONNECT_TIMEOUT_S),
            )
        )
    except OSError as error:  # what requests raises is an OSError too
        raise DataError(f"{url}: cannot be downloaded ({error})") from error
    except ValueError as error:  # pooch's word for a checksum that differs; nothing was kept
        raise DataError(
            f"{url}: truncated or altered, its sha256 is not {file.sha256[:12]}... as published"
        ) from error
