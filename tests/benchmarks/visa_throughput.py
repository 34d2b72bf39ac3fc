"""Compare queries and blocks over VISA with the same bytes over a raw socket and stock PyVISA.

    python tests/benchmarks/visa_throughput.py [--json] [--rounds N]

A server in a process of its own answers on the loopback. `ours` is what a driver calls: `ScpiLink`
over a `SocketAdapter`. `raw` is the least that a program with a bare socket must do for the same:
no timeout, the block's length known beforehand, float32 values received into a fresh array. A
write is a block followed by a `*OPC?` of its own. Rounds are interleaved; the ratio is the median
over the rounds of raw time over our time. `stock` is PyVISA on '@py' as its documentation uses it,
`query_binary_values` into an ndarray, with the better of two chunk sizes.
"""

import argparse
import json
import multiprocessing
import selectors
import socket
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
import pyvisa

from drivers.wires.scpi import ScpiLink
from drivers.wires.visa_socket import SocketAdapter

IDENTITY = b"PNNLAB,BENCHMARK,0,1\n"
SIZES = {"4k": 4096, "64k": 65_536, "400k": 400_000, "4M": 4_000_000}
STOCK_CHUNKS = (20 * 1024, 1 << 20)  # PyVISA's own, and one that holds the whole block
GOALS = {
    "query": 0.45,
    **dict.fromkeys(("read_4k", "read_64k", "write_4k", "write_64k"), 0.5),
    "read_400k": 0.7,
    "write_400k": 0.6,
    **dict.fromkeys(("read_4M", "write_4M"), 0.8),
}
GOAL_OVER_STOCK = 20.0
SLICE_S = 0.002  # how long one side is measured before the other has its turn
SITTINGS = 5
STOCK_EVERY = 10  # rounds
STOCK_SLICE_S = 0.05  # several reads of the slowest

Action = Callable[[], object]


# --- the server -------------------------------------------------------------------------------


def serve(ready: Connection) -> None:
    """Answer on a free loopback port, sent through `ready`, until the process is ended.

    One thread serves all connections, so that no client has the better-placed one.
    """
    blocks = {size: as_block(random_values(size)) for size in SIZES.values()}
    with socket.create_server(("127.0.0.1", 0)) as listener, selectors.DefaultSelector() as ends:
        ends.register(listener, selectors.EVENT_READ)
        ready.send(listener.getsockname()[1])
        while True:
            for key, _ in ends.select():
                if key.data is None:
                    line, _ = listener.accept()
                    send_at_once(line)
                    ends.register(line, selectors.EVENT_READ, bytearray())
                elif not answer(key.fileobj, key.data, blocks):
                    ends.unregister(key.fileobj)
                    key.fileobj.close()


def send_at_once(line: socket.socket) -> None:
    """Switch off what delays bytes on a loopback.

    A congestion control that paces (BBR) guesses the loopback's speed anew, and differently, for
    each connection: the same bytes may take three times as long on one of two.
    """
    line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if hasattr(socket, "TCP_CONGESTION"):
        line.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, b"reno")


def answer(line: socket.socket, here: bytearray, blocks: Mapping[int, bytes]) -> bool:
    """Answer what has come: `*IDN?`, `*OPC?`, `READ? <bytes>`, `WRITE #<block>`; False at its end.

    here: what has come so far and is not answered yet.
    """
    data = line.recv(65_536)
    here += data
    while here:
        if here.startswith(b"WRITE #"):
            if not swallow_block(line, here):
                break
            continue
        end = here.find(b"\n")
        if end < 0:
            break
        command = bytes(here[:end])
        del here[: end + 1]
        if command.startswith(b"READ? "):
            line.sendall(blocks[int(command[6:])])
        else:
            line.sendall(IDENTITY if command == b"*IDN?" else b"1\n")
    return bool(data)


def swallow_block(line: socket.socket, here: bytearray) -> bool:
    """Receive the rest of a block that begins in `here`; say whether its header was there."""
    head = 8 + int(here[7:8] or b"9")
    if len(here) < head:
        return False
    missing = head + int(here[8:head]) + 1 - len(here)
    if missing <= 0:
        del here[: len(here) + missing]
        return True
    sink = memoryview(bytearray(missing))
    while sink:
        sink = sink[line.recv_into(sink) :]
    here.clear()
    return True


def random_values(size: int) -> np.ndarray:
    """Return values that fill `size` bytes, the same in every process."""
    return np.random.default_rng(size).random(size // 4, dtype=np.float32)


def as_block(values: np.ndarray) -> bytes:
    """Return the values as a terminated block."""
    return block_head(values.nbytes) + values.tobytes() + b"\n"


def block_head(size: int) -> bytes:
    """Return the header of a block of `size` bytes."""
    return b"#%d%d" % (len(str(size)), size)


# --- the three clients ------------------------------------------------------------------------


def raw_query(line: socket.socket) -> bytes:
    """Ask over a bare socket."""
    line.sendall(b"*IDN?\n")
    return line.recv(4096)


def raw_read(line: socket.socket, size: int) -> np.ndarray:
    """Read a block over a bare socket."""
    head = block_head(size)
    whole = np.empty(len(head) + size + 1, np.uint8)
    line.sendall(b"READ? %d\n" % size)
    missing = whole.data
    while missing:
        missing = missing[line.recv_into(missing) :]
    if whole[: len(head)].tobytes() != head:
        raise ValueError("not the block that was asked for")
    return np.frombuffer(whole, "<f4", size // 4, len(head))


def raw_write(line: socket.socket, values: np.ndarray) -> bytes:
    """Write a block over a bare socket, and wait until it has been taken."""
    head = b"WRITE " + block_head(values.nbytes)
    sent = line.sendmsg([head, values, b"\n"])
    if sent < len(head) + values.nbytes + 1:
        line.sendall(values.view(np.uint8).data[sent - len(head) :])
        line.sendall(b"\n")
    line.sendall(b"*OPC?\n")
    return line.recv(4096)


def read(link: ScpiLink, size: int) -> np.ndarray:
    """Read a block as a driver does."""
    return np.frombuffer(link.ask_block(f"READ? {size}", size), "<f4")


def write(link: ScpiLink, values: np.ndarray) -> str:
    """Write a block as a driver does, and wait until it has been taken."""
    link.write_block("WRITE", values)
    return link.ask("*OPC?")


def actions(line: socket.socket, link: ScpiLink) -> dict[str, tuple[Action, Action]]:
    """Return for each case what the raw socket does and what a driver does."""
    cases: dict[str, tuple[Action, Action]] = {
        "query": (lambda: raw_query(line), lambda: link.ask("*IDN?")),
    }
    for name, size in SIZES.items():
        cases[f"read_{name}"] = (
            lambda size=size: raw_read(line, size),
            lambda size=size: read(link, size),
        )
    for name, size in SIZES.items():
        values = random_values(size)
        cases[f"write_{name}"] = (
            lambda values=values: raw_write(line, values),
            lambda values=values: write(link, values),
        )
    return cases


# --- measuring --------------------------------------------------------------------------------


def seconds_each(action: Action, times: int) -> float:
    """Return how long one of `times` takes, s."""
    begin = time.perf_counter()
    for _ in range(times):
        action()
    return (time.perf_counter() - begin) / times


class Contest:
    """Two ways to do the same, measured in turns; times in s."""

    def __init__(self, slice_s: float = SLICE_S) -> None:
        self._slice_s = slice_s
        self._sides: list[tuple[Action, int]] = []
        self._found: list[list[float]] = []

    def begin(self, one: Action, other: Action) -> None:
        """Measure these from now on; find out how often each fits into one slice."""
        self._sides = [(action, times_for(action, self._slice_s)) for action in (one, other)]

    def round(self, *, swapped: bool) -> None:
        """Measure both, the second one first where `swapped`."""
        order = self._sides[::-1] if swapped else self._sides
        times = [seconds_each(*side) for side in order]
        self._found.append(times[::-1] if swapped else times)

    @property
    def result(self) -> tuple[float, float, float]:
        """The median time of each, and the median over the rounds of the one over the other."""
        ratios = [one / other for one, other in self._found]
        one, other = (statistics.median(times) for times in zip(*self._found, strict=True))
        return one, other, statistics.median(ratios)


def times_for(action: Action, slice_s: float) -> int:
    """Return how often fits into one slice, after a warm-up."""
    seconds_each(action, 3)
    return max(3, round(slice_s / seconds_each(action, 3)))


def check_equal(line: socket.socket, link: ScpiLink, stock: Action) -> None:
    """Raise ValueError unless all three read the same values."""
    size = SIZES["400k"]
    for values in (raw_read(line, size), read(link, size), stock()):
        if not np.array_equal(values, random_values(size)):
            raise ValueError("the clients do not read the same values")


def measure(port: int, rounds: int) -> dict[str, object]:
    """Print the table; return the figures."""
    against_raw = {case: Contest() for case in GOALS}
    against_stock = [Contest(STOCK_SLICE_S) for _ in STOCK_CHUNKS]
    for _ in range(SITTINGS):  # with new connections, as one may have bad luck for all its life
        with ExitStack() as stack:
            line, link, stocks = (
                stack.enter_context(client) for client in (raw(port), ours(port), stock(port))
            )
            check_equal(line, link, stocks[0])
            sit(line, link, stocks, against_raw, against_stock, rounds // SITTINGS)
    print_table(against_raw, against_stock)
    ratios = {case: contest.result[2] for case, contest in against_raw.items()}
    over = min(contest.result[2] for contest in against_stock)
    return {"ratio_to_raw": ratios, "read_400k_over_stock": over}


def sit(
    line: socket.socket,
    link: ScpiLink,
    stocks: Sequence[Action],
    against_raw: Mapping[str, Contest],
    against_stock: Sequence[Contest],
    rounds: int,
) -> None:
    """Measure all cases in turns, so that no load of the machine hits one of them."""
    sides = actions(line, link)
    for case, contest in against_raw.items():
        contest.begin(*sides[case])
    for contest, read_stock in zip(against_stock, stocks, strict=True):
        contest.begin(read_stock, sides["read_400k"][1])
    for i in range(rounds):
        for contest in against_raw.values():
            contest.round(swapped=bool(i % 2))
        if i % STOCK_EVERY == 0:
            for contest in against_stock:
                contest.round(swapped=False)


@contextmanager
def raw(port: int) -> Iterator[socket.socket]:
    """Connect a bare socket."""
    with socket.create_connection(("127.0.0.1", port)) as line:
        send_at_once(line)
        yield line


@contextmanager
def ours(port: int) -> Iterator[ScpiLink]:
    """Connect as a driver does."""
    adapter = SocketAdapter(f"TCPIP0::127.0.0.1::{port}::SOCKET", 2.0, "\n")
    send_at_once(adapter.manager.visalib.sessions[adapter.connection.session].interface)
    with closing(ScpiLink(adapter, "benchmark", None, "", "\n")) as link:
        yield link


@contextmanager
def stock(port: int) -> Iterator[list[Action]]:
    """Connect as PyVISA's documentation does; give a read of 400 kB for each chunk size."""
    address = f"TCPIP0::127.0.0.1::{port}::SOCKET"
    ends = {"read_termination": "\n", "write_termination": "\n"}
    plain = pyvisa.ResourceManager("@py").open_resource(address, timeout=10_000, **ends)
    with closing(plain):
        query = f"READ? {SIZES['400k']}"
        yield [
            partial(plain.query_binary_values, query, "f", container=np.ndarray, chunk_size=chunk)
            for chunk in STOCK_CHUNKS
        ]


def print_table(against_raw: Mapping[str, Contest], against_stock: Sequence[Contest]) -> None:
    """Print times, ratios and goals, where JSON does not go."""
    print(f"{'':12}{'raw us':>10}{'ours us':>10}{'ratio':>8}{'goal':>7}", file=sys.stderr)
    for case, contest in against_raw.items():
        one, other, ratio = contest.result
        line = f"{case:12}{1e6 * one:10.1f}{1e6 * other:10.1f}{ratio:8.2f}{GOALS[case]:7.2f}"
        print(line, file=sys.stderr)
    for chunk, contest in zip(STOCK_CHUNKS, against_stock, strict=True):
        one, other, ratio = contest.result
        print(
            f"read_400k, stock with chunks of {chunk}: {1e6 * one:.0f} us, ours {1e6 * other:.1f} "
            f"us: {ratio:.0f} times faster (goal {GOAL_OVER_STOCK:.0f})",
            file=sys.stderr,
        )


def main() -> None:
    """Run the comparison."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    parser.add_argument(
        "--rounds", type=int, default=100, help="interleaved rounds per case, at least 5"
    )
    options = parser.parse_args()
    spawn = multiprocessing.get_context("spawn")
    ready, theirs = spawn.Pipe()
    server = spawn.Process(target=serve, args=(theirs,), daemon=True)
    server.start()
    try:
        figures = measure(ready.recv(), options.rounds)
    finally:
        server.terminate()
        server.join()
    if options.json:
        print(json.dumps(figures))


if __name__ == "__main__":
    main()
