"""Instrument drivers: one file per product family, each with a simulated counterpart.

Lives here: the wire formats, the limits, the safe states; `mock/` holds the simulated instruments
and their physics. May import numpy, pyvisa, pymeasure, httpx, vendor libraries (such as uldaq, only
when its instrument is opened) and, for the physics, numba; never torch, pydantic, twins, lab or
server. `transport` is the only place that tells a mock from a real address.
"""
