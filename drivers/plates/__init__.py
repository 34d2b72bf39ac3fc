"""A plate that a speaker drives and a microphone hears.

`audio`: on a sound interface (`audio_port`, PortAudio in a process of its own in `audio_process`),
whose recordings `alignment` brings in step. `daq_plate`: on a data acquisition board.
"""
