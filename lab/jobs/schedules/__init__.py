"""Schedules: jobs that start by themselves, by the clock on the wall.

A schedule is a cron expression in a time zone and the config of a job; each of its ticks starts an
ordinary job. `timetable` says when the ticks are and `due` which of them is to run now: pure
functions of time. `zones` finds time zones. `records` and `store` keep the schedules in the
database, where several services may look after the same ones. `clock` starts the jobs; `service`
is what a client uses.

A tick runs exactly once. Whoever finds it due first claims it in the database, which only one can,
then submits its job under a key of the tick's own, then notes the job. A service that dies in
between leaves the claim, and whoever sees it submits under the same key, which is answered with
the same job if there is one.
"""
