"""Jobs: what is kept of them, and the service that runs them.

`service` takes (`intake`), watches, pauses and cancels (`stopping`) jobs, and answers for them
(`answers`); `kinds` lists the kinds with their configs (`configs`), `dry_run` says what one would
cost, `schedules` starts them by the clock. `engine` decides when a run of a job begins and hands it
to `performing`, which works on it: `runner` checks jobs and has their work done, `live_job` is a
job while it runs, `going_on` brings it to where it goes on, `lineage` keeps where its numbers come
from. `sweeping` looks after jobs that nobody works
on, `tidying` after checkpoints that nobody needs; `housekeeping` does both again and again.
`queues` says where a job waits, `estimates` how long.

What a job computes is `work` (`looking`: that which only looks at a device), which knows of the lab
only its `desk`. It runs in a process that is forked from the `cradle`, of which the `nursery` is
the service's end. `supervision` serves that process at its `job_desk` and starts another when it
dies (`trainers`: what it asks of one); `pipe_desk` is the desk as the process sees it,
`told_errors` brings errors across. On a Ray cluster it is a task (`ray_trainer`) with a `far_line`,
the `ray_nursery` is the service's end, and the `ray_cradle` is the process that the cluster knows,
at the other end of a `ray_connection`. The record of jobs stays here.

`store` keeps jobs (`store_jobs`, `store_states`), what they find (`store_results`), twins
(`store_twins`) and shot numbers (`store_shots`) in a `database` (`tables`, `records`), waited for
with `patience`; tensors are `files` (`state_files`), in a `data_folder` or in tables
(`table_files`).

Where several services share a database, `identity` lets one of a name live, `hosts` says who has
died, `directory` knows the systems of all, `admission` tries the shared secret at them, `elsewhere`
measures on another's, and `fence` lets only the newest attempt at a job measure here.
"""
