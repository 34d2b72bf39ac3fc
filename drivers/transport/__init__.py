"""Open the wire to an instrument by its address: the only place that tells mock from real.

    mock://<rig>/<instrument>           the firmware of a simulated rig, in memory
    replay://<file>#<instrument>        a recorded session, which answers what was answered then
    http://192.168.1.20                 HTTP instruments
    TCPIP0::192.168.1.21::10001::SOCKET VISA instruments, through pyvisa-py
    mcc://01A2B3C4                      boards of Measurement Computing, through uldaq
    ocean://192.168.1.30                Ocean spectrometers over TCP (port 57357, or :port)
    ocean-usb://FLMS00123               Ocean spectrometers on USB, by serial number
    slm://slmsuite.hardware.slms.santec.Santec?slm_number=1
                                        phase displays, by slmsuite's class
    slm-tcp://192.168.1.40/panel        the display of this name on slmsuite's server (:port)
    audio://Scarlett 2i2                a sound interface by its name, through PortAudio

What is returned is of the same type either way, so drivers cannot know the difference. Wires that
are opened with `TappedRigs` have a tap on them (`drivers.wires.tap`).
"""

from drivers.mock.rig import Rig
from drivers.transport.addresses import MOCK, REPLAY
from drivers.transport.calls import open_audio, open_board, open_slm
from drivers.transport.rigs import RigSettings, open_rigs
from drivers.transport.streams import open_http, open_ocean, open_visa

__all__ = [
    "MOCK",
    "REPLAY",
    "Rig",
    "RigSettings",
    "open_audio",
    "open_board",
    "open_http",
    "open_ocean",
    "open_rigs",
    "open_slm",
    "open_visa",
]
