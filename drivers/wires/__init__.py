"""What several drivers need of a wire.

`http`; `scpi`, a conversation that stays in step, on VISA sockets that are fast and safe
(`visa_socket`, `visa_session`); `tap`, which listens to any wire, `tap_calls` to calls of a
library; `recording`, which keeps what a tap hears.
"""
