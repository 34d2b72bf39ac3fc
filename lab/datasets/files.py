"""Find a published data file: in a folder of the user's, or downloaded once into a cache."""

import gzip
import hashlib
import io
import zlib
from dataclasses import dataclass
from pathlib import Path

from lab.errors import DataError

CONNECT_TIMEOUT_S = 10.0


@dataclass(frozen=True)
class DataFile:
    """One published file: place under the data folder, address, length in bytes, checksum.

    gzipped: the stored file is a gzip of the content. `size` and `sha256` are the content's, which
    stays the same however it was packed.
    """

    path: str
    base_url: str
    size: int
    sha256: str
    gzipped: bool = False

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
        return _cached(file, base_url or file.base_url, cache)
    return _content(file, Path(folder) / file.path)


def _content(file: DataFile, path: Path) -> bytes:
    """Return the unpacked and checked content of a stored file."""
    try:
        stored = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    content = _unpacked(file, stored, path) if file.gzipped else stored
    _check(file, content, path)
    return content


def _unpacked(file: DataFile, stored: bytes, path: Path) -> bytes:
    """Unpack a gzip, at most one byte more than is expected, so that no file fills the memory."""
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(stored)) as packed:
            return packed.read(file.size + 1)
    except EOFError as error:
        raise DataError(f"{path}: truncated, the gzip has no end") from error
    except (OSError, zlib.error) as error:
        raise DataError(f"{path}: altered, it cannot be unpacked ({error})") from error


def _check(file: DataFile, content: bytes, path: Path) -> None:
    if hashlib.sha256(content).hexdigest() == file.sha256:
        return
    unpacked = " unpacked" if file.gzipped else ""
    if len(content) < file.size:
        raise DataError(f"{path}: truncated, {len(content)} of {file.size}{unpacked} bytes")
    begin = file.sha256[:12]
    raise DataError(f"{path}: altered, its{unpacked} sha256 is not {begin}... as published")


def _cached(file: DataFile, base_url: str, cache: Path | str | None) -> bytes:
    """Return the content from the cache; a file there that is not the published one is replaced."""
    path = _cache_folder(cache) / file.name
    # pooch checks a stored file; what was published of a gzip is the checksum of its content
    if file.gzipped and path.is_file():
        try:
            return _content(file, path)
        except DataError:
            path.unlink()
    _download(file, base_url, path)
    try:
        return _content(file, path)
    except DataError as error:
        path.unlink(missing_ok=True)
        raise DataError(f"{_url(file, base_url)}: as downloaded, {error}") from error


def _cache_folder(cache: Path | str | None) -> Path:
    # Imported here because it brings requests, which only a download needs.
    import pooch

    return Path(cache or pooch.os_cache("pnnlab"))


def _url(file: DataFile, base_url: str) -> str:
    return f"{base_url.rstrip('/')}/{file.name}"


def _download(file: DataFile, base_url: str, path: Path) -> None:
    import pooch

    url = _url(file, base_url)
    try:
        pooch.retrieve(
            url,
            known_hash=None if file.gzipped else f"sha256:{file.sha256}",
            fname=path.name,
            path=path.parent,
            downloader=pooch.HTTPDownloader(timeout=CONNECT_TIMEOUT_S),
        )
    except OSError as error:  # what requests raises is an OSError too
        raise DataError(f"{url}: cannot be downloaded ({error})") from error
    except ValueError as error:  # pooch's word for a checksum that differs; nothing was kept
        raise DataError(
            f"{url}: truncated or altered, its sha256 is not {file.sha256[:12]}... as published"
        ) from error
