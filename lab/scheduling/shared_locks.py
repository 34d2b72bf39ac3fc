"""The locks of instruments that several systems share."""

import asyncio
from collections import Counter
from collections.abc import Mapping

from lab.systems.base import PhysicalSystem


def shared_locks(systems: Mapping[str, PhysicalSystem]) -> dict[str, list[asyncio.Lock]]:
    """Return for each system the locks of the instruments it shares, in one global order."""
    used = {name: {id(instrument) for instrument in s.instruments} for name, s in systems.items()}
    users = Counter(instrument for instruments in used.values() for instrument in instruments)
    locks = {instrument: asyncio.Lock() for instrument in sorted(users) if users[instrument] > 1}
    return {name: [locks[i] for i in locks if i in used[name]] for name in systems}
