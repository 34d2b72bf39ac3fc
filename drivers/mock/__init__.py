"""Simulated instruments: what stands at the far end of the wire, and the physics behind it.

Lives here: `firmware/`, each instrument's own command language; `physics/`, the plants; `rig`,
which joins firmware and one shared plant, and `readout`, which stands between them; `faults`; the
in-memory ends of wires (`http`, `visa`, `byte_wire`), recorded sessions (`replay`, `replay_calls`);
`serve/`, which puts the same firmware on sockets, and `remote`, a rig as its clients there see it.
May import numpy, numba, httpx, h11, pyvisa and pymeasure, in `serve` asyncio; nothing here imports
a driver class, lab, twins or server.
"""
