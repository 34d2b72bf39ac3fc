"""What reaches this machine only, for both ends of the wire."""

import ipaddress


def is_loopback(host: str) -> bool:
    """Say whether an address reaches this machine only; a name but localhost is not trusted."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
