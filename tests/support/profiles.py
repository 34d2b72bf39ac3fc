"""Profiles of a WaveShaper as text."""

from drivers.shapers.wsp import ProfileFormat
from drivers.spec import Array


def format_profile(
    frequencies_thz: Array, attenuation_db: Array, phase_rad: Array, port: int
) -> str:
    """Return the text of one profile; arrays (lines,) in THz, dB and rad."""
    text = ProfileFormat(frequencies_thz, port).format(attenuation_db, phase_rad)
    return text.decode("ascii")
