"""What several drivers need of a wire.

`http`, and `http_client`, whose exchanges end in time; `scpi`, a conversation that stays in step,
with `blocks` of data, and `scpi_settings` that are read back; VISA sockets that are fast and safe
for it (`visa_socket`, `visa_session`); `tap`, which listens to any wire, `tap_calls` to calls of
a library; `recording`, which keeps what a tap hears.
"""
