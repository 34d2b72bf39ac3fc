"""Jobs: what is kept of them, and the service that runs them.

`service` takes, runs and cancels jobs, and goes on with what an earlier service left (`going_on`);
`runner` does one job's work; `live_job` is a job while it runs. `store` keeps jobs, metrics and
twins in a database (`tables`, `records`), tensors in files (`state_files`) under one `data_folder`.
"""
