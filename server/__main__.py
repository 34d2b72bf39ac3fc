"""`python -m server` is the command `pnnlab`."""

from server.cli import app

app(prog_name="pnnlab")
