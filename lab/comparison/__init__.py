"""The comparison of training methods: one twin, several methods and seeds, one honest table.

`plan` says what to run; `local` runs it on a bench file, `service` as jobs of a service; `summary`
sums it up, `table` prints it.
"""
