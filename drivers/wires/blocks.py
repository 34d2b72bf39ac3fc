"""IEEE 488.2 definite-length blocks, and how they pass through an adapter that only knows bytes.

`#`, how many digits follow, these digits, and as many bytes of data as they say.
"""

from typing import Any

from numpy.typing import NDArray
from pymeasure.adapters import Adapter
from pyvisa.constants import StatusCode
from pyvisa.errors import VisaIOError

Block = bytes | bytearray | memoryview | NDArray[Any]
"""Data of a block: anything that lies in one piece of memory."""


def header(length: int) -> bytes:
    """Return what comes before `length` bytes of data."""
    digits = str(length)
    return f"#{len(digits)}{digits}".encode("ascii")


def length_digits(head: bytes | bytearray) -> int:
    """Return how many digits follow the first two bytes of a block; 0 where they begin none."""
    return int(head[1:]) if head[:1] == b"#" and head[1:].isdigit() else 0


def read_head(adapter: Adapter) -> bytes:
    """Return the header of a data block, or the first two bytes of what is none."""
    head: bytes = adapter.read_bytes(2)
    digits = length_digits(head)
    return head + adapter.read_bytes(digits) if digits else head


def read_into(adapter: Adapter, whole: memoryview) -> None:
    """Fill `whole` with the bytes that come next."""
    data = adapter.read_bytes(len(whole))
    if len(data) != len(whole):
        raise VisaIOError(StatusCode.error_timeout)
    whole[:] = data


def write_parts(adapter: Adapter, *parts: bytes | memoryview) -> None:
    """Send `parts` as one message; no terminator is added."""
    adapter.write_bytes(b"".join(parts))
