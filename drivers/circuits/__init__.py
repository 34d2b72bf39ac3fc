"""Data acquisition boards at a circuit.

`mcc`: USB-1208HS-4AO, called through `mcc_board`. `redpitaya`: STEMlab 125-14 over SCPI, with the
board's settings in `redpitaya_board`, what a row may be in `redpitaya_row` and its waveforms as
text in `redpitaya_table`.
"""
