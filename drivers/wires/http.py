"""One exchange with an HTTP instrument: what httpx raises becomes what drivers raise."""

import httpx

from drivers.errors import ConnectionLost, InstrumentRefused, InstrumentTimeout


def exchange(client: httpx.Client, request: httpx.Request, *, name: str, asked: str) -> bytes:
    """Send a request to the instrument `name` and return the body of its answer.

    `asked` is for the error message. Raises InstrumentTimeout, ConnectionLost (also after the
    client has been closed), or InstrumentRefused for any status but 200.
    """
    if client.is_closed:
        raise ConnectionLost(name, f"{asked}: the driver has been closed")
    try:
        response = client.send(request)
    except httpx.TimeoutException as error:
        message = f"{asked}: no answer within {client.timeout.read:g} s"
        raise InstrumentTimeout(name, message) from error
    except httpx.HTTPError as error:
        where = client.base_url.netloc.decode()
        raise ConnectionLost(name, f"{asked}: {where}: {error}") from error
    if response.status_code != httpx.codes.OK:
        said = response.text[:200] or "nothing else is said"
        message = f"{asked}: HTTP status {response.status_code}: {said}"
        raise InstrumentRefused(name, message)
    return response.content
