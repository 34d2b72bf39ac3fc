"""The hardware scheduler: queues of forward passes in front of the systems.

`scheduler` is what callers use; `system_queue` serves one system, with `planning` (what runs next)
and `reserved_use`; `waiting` holds the order of its passes, `system_worker` is the only code that
touches instruments, `duty_cycle` counts busy time.
"""
