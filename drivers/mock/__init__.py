"""Simulated instruments: what stands at the far end of the wire, and the physics behind it.

Lives here: `faults`, the firmware of each instrument (`waveshaper`, `yokogawa` on the command
interpreter `scpi`), the in-memory ends of the two kinds of wire (`http`, `visa`), the board `mcc`
and the sound interface `audio`, which are called and have no wire, the physics (`optics`,
`circuit`, `plate`), `readout`, which stands between a plant and what reads it, and `rig`, which
joins firmware and one shared plant. Firmware knows bytes, not transports: `serve` puts the same
classes on sockets, and `remote` is the rig as its clients there see it. May import numpy, numba,
httpx, h11, pyvisa and pymeasure, in `serve` asyncio; nothing here imports a driver class, lab,
twins or server.
"""
