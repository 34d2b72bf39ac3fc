"""The names under which errors travel over HTTP (RFC 9457, `type`), for both ends of the wire."""

import re

PREFIX = "urn:pnnlab:problem:"
INVALID_REQUEST = PREFIX + "invalid-request"


def problem_type(kind: type[Exception]) -> str:
    """Return the `type` of an error class: SystemFaulted is urn:pnnlab:problem:system-faulted."""
    return PREFIX + re.sub(r"(?<!^)(?=[A-Z])", "-", kind.__name__).lower()
