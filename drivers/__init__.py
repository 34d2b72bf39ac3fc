"""Instrument drivers, by kind; one file per product family, each with a simulated counterpart.

    shapers  spectrometers  plates  circuits      the drivers
    instrument  spec  limits  errors  abort       what they all offer and obey
    transport                                     which wire an address means: mock or real
    wires                                         what several drivers need of a wire
    interlock                                     the contact that must be OK
    row_key                                       which row it is, for simulated noise and drift
    mock                                          simulated instruments and their physics

May import numpy, pyvisa, pymeasure, httpx, vendor libraries (such as uldaq, only when its
instrument is opened) and, for the physics, numba; never torch, pydantic, twins, lab or server.
"""
