"""The service: FastAPI app, command line. Knows `lab`, and holds no physics and no training.

    app          the FastAPI app; lifespan.py opens and closes the lab it serves
    routes/      one file per resource under /api/v1
    views        what the routes answer, as plain models
    doorkeeper   what is refused before a request is looked at
    arrays       rows and measurements as JSON and as npz
    errors       exception -> problem details (RFC 9457), the one table of statuses
    serve        one process: socket, signals, safe end
    cli          the command `pnnlab`; cli_*.py: its subcommands
    check        a bench's bring-up as `pnnlab check` prints it; dry_run.py only shows what it sends
    openapi      prints the schema that openapi.json keeps (`python -m server.openapi`)

No driver, torch, database or file work runs on the event loop's thread.
"""
