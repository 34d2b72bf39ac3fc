"""Jobs: what is kept of them, and the service that runs them.

`service` takes, watches, pauses and cancels jobs. `engine` decides when a run of one begins and
hands it to `performing`, which works on it: `runner` does one job's work, `live_job` is a job while
it runs, `going_on` brings it to where it goes on. `sweeping` looks after jobs that nobody works on.
`kinds` lists the kinds of job with their configs (`configs`); `looking` does those that only look
at a device; `dry_run` says what a job would cost; `schedules` starts jobs by the clock. `store`
keeps jobs, metrics and twins in a database (`tables`, `records`), tensors in files (`state_files`).
"""
