"""All that a lab service answers, as methods of one object."""

from functools import partial
from typing import Self

from lab.calls import Calls
from lab.client.data import DataCalls
from lab.client.jobs import JobCalls
from lab.client.names import checked_name
from lab.client.schedules import ScheduleCalls
from lab.client.submissions import SubmissionCalls
from lab.client.systems import SystemCalls
from lab.secret import chosen_secret


class Client(SystemCalls, SubmissionCalls, JobCalls, ScheduleCalls, DataCalls):
    """A lab service at `url`; blocking, for one thread at a time. Close it, or use `with`."""

    def __init__(
        self,
        url: str = "http://127.0.0.1:8000",
        *,
        name: str | None = None,
        secret: str | None = None,
    ) -> None:
        """`name` says who asks, whose share of the hardware is used; default: `client_name()`.

        secret: the one that the service shares; default: the environment's, if it has one. Raises
        ConfigError for a name that is not printable ASCII, or an impossible secret.
        """
        self.url = url.rstrip("/")
        self.name = checked_name(name)
        self._secret = chosen_secret(secret)
        self._calls = Calls(self.url, self.name, self._secret)
        self._another = partial(Client, self.url, name=self.name, secret=self._secret)

    def close(self) -> None:
        """Close the connections."""
        self._calls.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
