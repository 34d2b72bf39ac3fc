"""Spectrometers.

`yokogawa`: AQ6370 series over SCPI, on PyMeasure's class as `yokogawa_mended` mends it. `ocean`:
Ocean's, through seabreeze (`ocean_seabreeze`), whose protocol stands in `ocean_frames` and whose
wire in `ocean_link`.
"""
