"""Values as they are kept and sent: what JSON can hold."""

import math
from collections.abc import Mapping
from typing import Any


def plain(value: Any) -> Any:
    """Return JSON data; what is not finite becomes null, which every database and client reads."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value
