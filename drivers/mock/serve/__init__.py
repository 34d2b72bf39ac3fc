"""Simulated instruments on real sockets: the firmware that also serves in memory, on the loopback.

    connection  one client's TCP connection, with the faults of its wire
    stream      firmware on a byte stream (SCPI, Ocean's protocol)
    web         firmware that speaks HTTP, through h11
    admin       beside the wires: row keys, faults, counters, health
    sockets     everything that a bench file simulates, on ports of its own

The only package of `drivers` that uses asyncio: one process, one event loop, one thread. A request
is carried out in that thread as it arrives, so that two instruments of a rig never use its plant
at once, and a connection costs no hop between threads. Firmware must therefore not block; how
long a sweep takes is told by a clock that the host polls.
"""
