"""The check of a pass before it queues: its arrays, its row keys, its id."""

import secrets
from dataclasses import replace

from lab.measurement import ForwardPass
from lab.systems.base import PhysicalSystem


def checked(system: PhysicalSystem, forward_pass: ForwardPass) -> ForwardPass:
    """Return the pass with checked copies of its arrays (the caller may reuse its own) and an id.

    Raises LimitError or ValueError.
    """
    p = forward_pass
    x, theta = system.check(p.x, p.theta)
    if p.keys is not None and len(p.keys) != len(x):
        raise ValueError(f"{p.system}: {len(x)} rows but {len(p.keys)} row keys")
    keys = None if p.keys is None else tuple(p.keys)
    pass_id = p.pass_id or secrets.token_hex(16)
    return replace(p, x=x, theta=theta, keys=keys, pass_id=pass_id)
