"""Pulse shapers.

`waveshaper`: WaveShaper A series over HTTP, with its profiles as text in `wsp`. `slm`: phase
displays that slmsuite drives (`slm_display`), a grating for each line (`slm_grating`).
"""
