r"""A recorded session: JSON lines, one event of one wire each, that a person can read.

    {"pnnlab_session": 1, "bench": "optics-lab", "began": "2030-01-31T12:00:00+00:00"}
    {"at_s": 0.0, "instrument": "spectrometer", "what": "opened"}
    {"at_s": 0.01, "instrument": "spectrometer", "what": "sent", "text": "*IDN?\r\n"}
    {"at_s": 0.02, "instrument": "spectrometer", "what": "received", "text": "YOKOGAWA,...\r\n"}
    {"ended": true, "events": 3}

`what` is opened, sent, received or failed; `head` what was asked beside the bytes (`GET /path`).
Bytes are `text` where they are printable ASCII, else `base64`, long ones `zlib` (compressed, then
base64). Passwords are not recorded: `"secret": true` stands there instead. The last line tells a
whole recording from one that was cut off.
"""

import json
import logging
import threading
import time
import zlib
from base64 import b64decode, b64encode
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from drivers.wires.tap import Event, Tap, is_text

log = logging.getLogger(__name__)

VERSION = 1
_COMPRESSED_FROM = 4096  # bytes


class Recorder:
    """Writes what the taps of a session's wires tell; any number of threads."""

    def __init__(self, path: Path, bench: str) -> None:
        """Create the file, which must not exist yet; raises OSError."""
        self._lock = threading.Lock()
        self._file = path.open("x", encoding="ascii", buffering=1)  # a crash loses one line at most
        self._began_s = time.monotonic()
        self._events = 0
        self._broken = False
        began = datetime.now(UTC).isoformat(timespec="seconds")
        head = {"pnnlab_session": VERSION, "bench": bench, "began": began}
        self._file.write(json.dumps(head) + "\n")

    def tap(self, instrument: str) -> Tap:
        """Return the tap for one instrument's wire."""
        return partial(self._record, instrument)

    def _record(self, instrument: str, event: Event) -> None:
        with self._lock:
            at_s = round(time.monotonic() - self._began_s, 6)
            self._write({"at_s": at_s, "instrument": instrument, **_as_json(event)})
            self._events += 1

    def _write(self, content: dict[str, Any]) -> None:
        """Write one line; a disk that is full must not keep commands from an instrument."""
        if self._broken:
            return
        try:
            self._file.write(json.dumps(content) + "\n")
        except (OSError, ValueError) as error:  # ValueError: the file has been closed
            self._broken = True
            log.error("%s: the recording ends here: %s", self._file.name, error)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Write the last line and close the file; idempotent."""
        with self._lock:
            if not self._file.closed:
                self._write({"ended": True, "events": self._events})
                with suppress(OSError):  # told already, where the last line was written
                    self._file.close()


def load_recording(path: Path) -> dict[str, list[tuple[int, Event]]]:
    """Return each instrument's events, with the numbers of their lines.

    Raises ValueError that names file, line and reason: not a recording, or one that is cut off.
    """
    try:
        lines = path.read_text(encoding="ascii").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: cannot be read ({error})") from error
    contents = [_parsed(path, number, line) for number, line in enumerate(lines, 1)]
    if not contents or contents[0].get("pnnlab_session") != VERSION:
        raise ValueError(f"{path}: no recorded session of version {VERSION}")
    events = contents[1:-1]
    if contents[-1].get("ended") is not True or contents[-1].get("events") != len(events):
        raise ValueError(f"{path}: cut off: line {len(lines)} does not end the recording")
    sessions: dict[str, list[tuple[int, Event]]] = {}
    for number, content in enumerate(events, 2):
        try:
            event = number, _from_json(content)
            sessions.setdefault(content["instrument"], []).append(event)
        except (KeyError, TypeError, ValueError, zlib.error) as error:
            raise ValueError(f"{path}: line {number} is no event ({error!r})") from error
    return sessions


def _parsed(path: Path, number: int, line: str) -> dict[str, Any]:
    try:
        content = json.loads(line)
    except ValueError as error:
        raise ValueError(f"{path}: line {number} is cut off or no JSON ({error})") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path}: line {number} is no JSON object")
    return content


def _as_json(event: Event) -> dict[str, Any]:
    content: dict[str, Any] = {"what": event.what}
    if event.head:
        content["head"] = event.head
    if event.secret:
        content["secret"] = True
    if event.data:
        if is_text(event.data):
            content["text"] = event.data.decode("ascii")
        elif len(event.data) < _COMPRESSED_FROM:
            content["base64"] = b64encode(event.data).decode()
        else:
            content["zlib"] = b64encode(zlib.compress(event.data)).decode()
    return content


def _from_json(content: dict[str, Any]) -> Event:
    if content["what"] not in ("opened", "sent", "received", "failed"):
        raise ValueError(f"what = {content['what']!r}")
    data = b""
    if "text" in content:
        data = content["text"].encode("ascii")
    elif "base64" in content:
        data = b64decode(content["base64"], validate=True)
    elif "zlib" in content:
        data = zlib.decompress(b64decode(content["zlib"], validate=True))
    secret = content.get("secret", False) is True
    return Event(content["what"], content.get("head", ""), data, secret)
