"""A PostgreSQL database of one's own for a test, on the server at PNNLAB_TEST_DATABASE_URL."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager

import sqlalchemy as sa

VARIABLE = "PNNLAB_TEST_DATABASE_URL"


def why_not() -> str | None:
    """Return why there is no server to test on, None if there is one."""
    url = os.environ.get(VARIABLE)
    if not url:
        return f"needs a PostgreSQL server: {VARIABLE} does not name one"
    engine = _engine(url)
    try:
        engine.connect().close()
    except sa.exc.OperationalError as error:
        return f"needs a PostgreSQL server: {VARIABLE}={url}: {error.orig}"
    finally:
        engine.dispose()
    return None


@contextmanager
def open_database() -> Iterator[str]:
    """Make an empty database; give its URL, and drop it at the end, whoever still uses it."""
    url = os.environ[VARIABLE]
    name = f"pnnlab_test_{secrets.token_hex(6)}"
    engine = _engine(url)
    try:
        with engine.connect() as connection:
            connection.execute(sa.text(f"CREATE DATABASE {name}"))
        try:
            mine = sa.make_url(url).set(drivername="postgresql", database=name)
            yield mine.render_as_string(hide_password=False)
        finally:
            with engine.connect() as connection:
                connection.execute(sa.text(f"DROP DATABASE {name} WITH (FORCE)"))
    finally:
        engine.dispose()


def _engine(url: str) -> sa.Engine:
    parsed = sa.make_url(url).set(drivername="postgresql+psycopg", database="postgres")
    return sa.create_engine(
        parsed, isolation_level="AUTOCOMMIT", connect_args={"connect_timeout": 5}
    )
