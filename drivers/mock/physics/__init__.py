"""The physics behind simulated instruments: optics, circuit and plate, each with its adjoint.

Noise and drift follow from the row key alone (`keyed_noise`); numbers stand in `*_table`.
"""
