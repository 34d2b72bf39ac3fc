"""The process that trainer processes are forked from: everything slow is imported here, once.

    python -P -m lab.jobs.cradle FD

It holds nothing of its parent's but the socket FD, over which come, for each trainer, the end of
its pipe and the end of a pipe for (in lines) its process id and, later, its exit code. It and its
children have no interest in signals: the parent decides, and they go when it goes.
"""

import importlib
import os
import selectors
import signal
import socket
import sys
import traceback
from multiprocessing.connection import Connection

# What the work imports on first use.
SLOW_IMPORTS = ("sklearn.linear_model", "sklearn.datasets", "torch._dynamo")
_FAILED = 1  # exit code


def main() -> None:
    """Serve the parent until it goes."""
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        signal.signal(signal.Signals[name], signal.SIG_IGN)
    for module in ("lab.jobs.work", "lab.jobs.pipe_desk", *SLOW_IMPORTS):
        importlib.import_module(module)
    with socket.socket(fileno=int(sys.argv[1])) as control:
        Cradle(control).serve()


class Cradle:
    """Fork trainers, and tell how each ended."""

    def __init__(self, control: socket.socket) -> None:
        """Take requests from `control`."""
        self._control = control
        self._status: dict[int, int] = {}  # by process id: where to tell its exit code
        self._ended, self._end = os.pipe()
        os.set_blocking(self._ended, False)
        os.set_blocking(self._end, False)

    def serve(self) -> None:
        """Serve until the parent closes its end."""
        signal.signal(signal.SIGCHLD, lambda *_: None)  # so that the next line hears of it
        signal.set_wakeup_fd(self._end, warn_on_full_buffer=False)
        with selectors.DefaultSelector() as selector:
            selector.register(self._control, selectors.EVENT_READ)
            selector.register(self._ended, selectors.EVENT_READ)
            while True:
                ready = [key.fileobj for key, _ in selector.select()]
                if self._ended in ready:
                    os.read(self._ended, 4096)
                    self._tell_ended()
                if self._control in ready and not self._fork_one():
                    return

    def _fork_one(self) -> bool:
        """Fork a trainer if one is asked for; False: the parent has gone."""
        _, fds, _, _ = socket.recv_fds(self._control, 1, 2)
        if not fds:
            return False
        line, status = fds
        pid = os.fork()
        if pid == 0:
            self._be_trainer(line, status)
        os.close(line)
        self._status[pid] = status
        _write(status, pid)
        return True

    def _be_trainer(self, line: int, status: int) -> None:
        code = _FAILED
        try:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            self._control.close()
            for fd in (self._ended, self._end, status, *self._status.values()):
                os.close(fd)
            from lab.jobs.pipe_desk import work_at

            work_at(Connection(line))
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)

    def _tell_ended(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            fd = self._status.pop(pid)
            _write(fd, os.waitstatus_to_exitcode(status))
            os.close(fd)


def _write(fd: int, number: int) -> None:
    try:
        os.write(fd, b"%d\n" % number)
    except BrokenPipeError:  # the parent does not want to know any more
        return


if __name__ == "__main__":
    main()
