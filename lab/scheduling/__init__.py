"""The hardware scheduler: queues of forward passes in front of the systems.

`scheduler` is what callers use, `blocking_callers` for threads. `system_queue` serves one system,
with `planning` (what runs next), `settling` (what becomes of a call's passes), `faults`, `recovery`
and `reserved_use`; `waiting` holds the order of its passes, `system_worker` is the only code that
touches instruments, `duty_cycle` counts busy time.
"""
