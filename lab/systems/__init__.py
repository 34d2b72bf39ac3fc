"""The physical systems by name: what a bench file may write as `system = "..."`.

A bench file may also name any class of the user's own by import path
(`my_lab.oscillators:CoupledOscillators`); it is built with the same arguments.
"""

from lab.systems.base import PhysicalSystem
from lab.systems.circuit import CircuitSystem
from lab.systems.optics import OpticsSystem
from lab.systems.plate import PlateSystem

SYSTEMS: dict[str, type[PhysicalSystem]] = {
    "optics": OpticsSystem,
    "circuit": CircuitSystem,
    "plate": PlateSystem,
}
