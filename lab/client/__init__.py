"""Talk to a lab service from a notebook or a script: neither torch nor drivers are needed.

    with Client("http://127.0.0.1:8000") as lab:
        job = lab.submit({"task": "vowels", "method": "pat-refit"})
        for event in lab.watch(job["id"]):
            print(event.kind, event.data)

Errors that the service names come back as the same classes of `lab.errors`; the others, among
them those of instruments, as ServiceError.

`client` is all of it; its methods stand by what they are about: `systems`, `submissions`, `jobs`,
`schedules`, `data` (that goes in and comes out). `names` says who asks.
"""

from lab.calls import ServiceError
from lab.client.client import Client
from lab.client.names import checked_name, client_name

__all__ = ["Client", "ServiceError", "checked_name", "client_name"]
