"""Measured rows as they leave the lab: recorded beside the jobs, read with xarray.

`recorder` takes what jobs measure and writes it in a thread of its own: one Zarr group a job
(`layout` says what is in it, `writer` writes it), on a `shelf` that is kept within a budget of
disk; `notes` say what is missing there. `copying` packs a job's rows for a client, `reading` opens
them with xarray (the extra `data`), `metrics_csv` writes metrics as a table.

Imports neither torch nor the scheduler; xarray in `reading` only.
"""
