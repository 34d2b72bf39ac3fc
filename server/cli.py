"""The command line `pnnlab`.

    serve, check                       cli_bench: open a bench on this machine
    worker                             cli_bench: work for the services of others
    mock                               cli_mock: put its simulated instruments on sockets
    submit                             cli_submit: start a training on a running service
    jobs, watch, cancel                cli_jobs: see and steer its jobs
    jobs show, jobs rerun              cli_provenance: where their numbers come from; again
    calibrate, evaluate                cli_looking: and have it look at a device
    upload, data                       cli_data: give it data of one's own, take out a job's
    schedules                          cli_schedules: start jobs by the clock
    queue, reserve, release,           cli_queue: share the systems of one
    recover, stop
    compare                            cli_compare: several methods, here or on a service
    demo                               cli_demo: all of it on the simulated bench, with a report

An error is one line on stderr and exit code 1 (2 where the command itself is wrong).
"""

from typing import Any

import typer
from typer.core import TyperGroup

from drivers.errors import reason
from lab.traces import trace_of
from server import (
    cli_bench,
    cli_compare,
    cli_data,
    cli_demo,
    cli_jobs,
    cli_looking,
    cli_mock,
    cli_provenance,
    cli_queue,
    cli_schedules,
    cli_submit,
)


class _OneLineErrors(TyperGroup):
    """Turn the errors that a user can do something about into one line."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except Exception as error:
            if trace_of(error) is not None:
                raise
            typer.echo(f"pnnlab: {reason(error)}", err=True)
            raise typer.Exit(1) from error


app = typer.Typer(
    name="pnnlab",
    help="Train deep physical neural networks on real and simulated instruments.",
    cls=_OneLineErrors,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command("serve")(cli_bench.serve)
app.command("worker")(cli_bench.worker)
app.command("check")(cli_bench.check)
app.command("mock")(cli_mock.mock)
app.command("submit")(cli_submit.submit)
app.add_typer(cli_jobs.app, name="jobs")
cli_jobs.app.command("show")(cli_provenance.show)
cli_jobs.app.command("rerun")(cli_provenance.rerun)
app.command("watch")(cli_jobs.watch)
app.command("cancel")(cli_jobs.cancel)
app.command("calibrate")(cli_looking.calibrate)
app.command("evaluate")(cli_looking.evaluate)
app.command("upload")(cli_data.upload)
app.add_typer(cli_schedules.app, name="schedules")
app.command("data")(cli_data.data)
app.command("queue")(cli_queue.queue)
app.command("reserve")(cli_queue.reserve)
app.command("release")(cli_queue.release)
app.command("recover")(cli_queue.recover)
app.command("stop")(cli_queue.stop)
app.command("compare")(cli_compare.compare)
app.command("demo")(cli_demo.demo)
