"""The one download, against a server on the loopback."""

import gzip
import hashlib
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from lab.datasets import load_or_fallback
from lab.datasets.files import DataFile, read_file
from lab.errors import DataError

CONTENT = b"formants " * 100


class Published(ThreadingHTTPServer):
    """Serve `content` at /mirror/table.dat, announcing `announced` bytes; record the requests."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.content = CONTENT
        self.announced = len(CONTENT)
        self.requests: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/mirror"


class Handler(BaseHTTPRequestHandler):
    server: Published

    def do_GET(self) -> None:
        self.server.requests.append(self.path)
        self.send_response(200 if self.path.startswith("/mirror/table.dat") else 404)
        self.send_header("Content-Length", str(self.server.announced))
        self.end_headers()
        self.wfile.write(self.server.content)

    def log_message(self, *_: object) -> None:
        """Keep the test output quiet."""


@pytest.fixture
def server(monkeypatch) -> Iterator[Published]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with Published() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def file(server) -> DataFile:
    return DataFile(
        "folder/table.dat", server.url, len(CONTENT), hashlib.sha256(CONTENT).hexdigest()
    )


def test_downloads_once_and_then_reads_the_cache(server, file, tmp_path):
    cache = tmp_path / "cache"
    assert read_file(file, cache=cache) == CONTENT
    assert read_file(file, cache=cache) == CONTENT
    assert server.requests == ["/mirror/table.dat"]


def test_an_altered_cache_is_downloaded_again(server, file, tmp_path):
    (tmp_path / "table.dat").write_bytes(CONTENT[:-1])
    assert read_file(file, cache=tmp_path) == CONTENT
    assert server.requests == ["/mirror/table.dat"]


@pytest.fixture
def packed(server, file) -> DataFile:
    """Publish the content as a gzip; stated are its own length and checksum."""
    server.content = gzip.compress(CONTENT)
    server.announced = len(server.content)
    return replace(file, path="folder/table.dat.gz", gzipped=True)


def test_a_gzip_is_downloaded_once_and_checked_by_its_content(server, packed, tmp_path):
    assert read_file(packed, cache=tmp_path) == CONTENT
    assert read_file(packed, cache=tmp_path) == CONTENT
    assert server.requests == ["/mirror/table.dat.gz"]


def test_an_altered_gzip_in_the_cache_is_downloaded_again(server, packed, tmp_path):
    (tmp_path / "table.dat.gz").write_bytes(gzip.compress(CONTENT.swapcase()))
    assert read_file(packed, cache=tmp_path) == CONTENT
    assert server.requests == ["/mirror/table.dat.gz"]


def test_an_altered_gzip_is_refused_and_not_kept(server, packed, tmp_path):
    server.content = gzip.compress(CONTENT.swapcase())
    server.announced = len(server.content)
    with pytest.raises(DataError, match=r"mirror/table\.dat\.gz: .* its unpacked sha256 is not"):
        read_file(packed, cache=tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("stored", "reason"),
    [
        (gzip.compress(CONTENT)[:-9], "truncated, the gzip has no end"),
        (gzip.compress(CONTENT[:-7]), "truncated, 893 of 900 unpacked bytes"),
        (gzip.compress(CONTENT + b"more"), "altered, its unpacked sha256 is not"),
        (CONTENT, "altered, it cannot be unpacked"),
        (b"", "truncated, 0 of 900 unpacked bytes"),
    ],
)
def test_a_gzip_in_a_folder_that_is_not_the_published_one(packed, tmp_path, stored, reason):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "table.dat.gz").write_bytes(stored)
    with pytest.raises(DataError, match=rf"table\.dat\.gz: {reason}"):
        read_file(packed, tmp_path)


def test_another_base_url_is_asked_instead(server, file, tmp_path):
    elsewhere = DataFile(file.path, "http://127.0.0.1:9/never-asked", file.size, file.sha256)
    assert read_file(elsewhere, base_url=server.url + "/", cache=tmp_path) == CONTENT


def test_altered_content_is_refused_and_not_kept(server, file, tmp_path):
    server.content = CONTENT.swapcase()
    with pytest.raises(DataError, match=r"table\.dat: truncated or altered, its sha256 is not"):
        read_file(file, cache=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_connection_that_breaks_off_is_refused_and_not_kept(server, file, tmp_path):
    server.announced += 10
    with pytest.raises(DataError, match=r"table\.dat: cannot be downloaded"):
        read_file(file, cache=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_missing_page_is_named_with_its_status(server, file, tmp_path):
    with pytest.raises(DataError, match=r"cannot be downloaded .*404"):
        read_file(file, base_url=server.url + "/moved", cache=tmp_path)


def test_the_fallback_says_in_one_line_that_nobody_answers(server, monkeypatch, tmp_path):
    monkeypatch.delenv("PNNLAB_DATA", raising=False)
    monkeypatch.setenv("PNNLAB_DATA_URL", f"{server.url}/gone")
    dataset, reason = load_or_fallback(cache=tmp_path)
    assert dataset.name == "digits"
    assert server.requests == ["/mirror/gone/vowdata.dat"]
    assert "404" in reason
    assert "\n" not in reason
