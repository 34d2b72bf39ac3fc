"""The far end of each instrument's wire: its own command language, its limits, its faults.

Firmware knows bytes, or the calls of a library, and no transport. It counts for itself what
arrives out of limits.
"""
