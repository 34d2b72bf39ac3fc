"""The tables of the store."""

import sqlalchemy as sa

metadata = sa.MetaData()

jobs = sa.Table(
    "jobs",
    metadata,
    sa.Column("id", sa.String(32), primary_key=True),
    sa.Column("kind", sa.String(16), nullable=False),
    sa.Column("state", sa.String(16), nullable=False, index=True),
    sa.Column("config", sa.JSON, nullable=False),
    sa.Column("client", sa.Text, nullable=False),
    sa.Column("error", sa.Text, nullable=False),
    sa.Column("created_s", sa.Double, nullable=False, index=True),
    sa.Column("started_s", sa.Double),
    sa.Column("finished_s", sa.Double),
    sa.Column("result", sa.JSON(none_as_null=True)),
    # `upgrade` adds these to the table of an older version
    sa.Column("key", sa.Text, unique=True),
    sa.Column("asked", sa.String(64)),  # digest of what the key was used for
    sa.Column("tags", sa.JSON, nullable=False, server_default="[]"),
    sa.Column("origin", sa.Text, nullable=False, server_default=""),
    sa.Column("parent", sa.String(32), index=True),
    sa.Column("queue", sa.Text, nullable=False, server_default=""),
    sa.Column("priority", sa.Integer, nullable=False, server_default="0"),
    sa.Column("deadline_s", sa.Double),
    sa.Column("host", sa.Text, nullable=False, server_default=""),
    sa.Column("run", sa.Integer, nullable=False, server_default="1"),
    sa.Column("attempt", sa.Integer, nullable=False, server_default="0"),
    sa.Column("deaths", sa.Integer, nullable=False, server_default="0"),
    sa.Column("continued_s", sa.Double),
    sa.Column("wish", sa.String(16), nullable=False, server_default=""),
    sa.Column("last_step", sa.Integer, nullable=False, server_default="0"),
    sa.Column("provenance", sa.JSON(none_as_null=True)),
)

metrics = sa.Table(
    "metrics",
    metadata,
    sa.Column("job_id", sa.ForeignKey("jobs.id"), primary_key=True),
    sa.Column("step", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("metric", sa.JSON, nullable=False),
)

twins = sa.Table(
    "twins",
    metadata,
    sa.Column("id", sa.String(32), primary_key=True),
    sa.Column("system", sa.Text, nullable=False),
    sa.Column("kind", sa.String(16), nullable=False),
    sa.Column("rows", sa.Integer, nullable=False),
    sa.Column("seed", sa.BigInteger, nullable=False),
    sa.Column("job", sa.ForeignKey("jobs.id"), nullable=False),
    sa.Column("bench", sa.String(64), nullable=False),
    sa.Column("created_s", sa.Double, nullable=False, index=True),
    sa.Column("report", sa.JSON, nullable=False),
)

hosts = sa.Table(
    "hosts",
    metadata,
    sa.Column("name", sa.String(255), primary_key=True),
    sa.Column("url", sa.Text, nullable=False),
    sa.Column("systems", sa.JSON, nullable=False),
    sa.Column("beats", sa.BigInteger, nullable=False),
    sa.Column("since_s", sa.Double, nullable=False),
    sa.Column("bench", sa.JSON(none_as_null=True)),
)

shots = sa.Table(
    "shots",
    metadata,
    sa.Column("system", sa.String(255), primary_key=True),
    sa.Column("next_shot", sa.BigInteger, nullable=False),
)

# One row, written to find out whether that is possible.
pulse = sa.Table(
    "pulse",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("written_s", sa.Double, nullable=False),
)

files = sa.Table(
    "files",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("size", sa.BigInteger, nullable=False),
    sa.Column("sha256", sa.String(64), nullable=False),
    sa.Column("created_s", sa.Double, nullable=False),
)

file_parts = sa.Table(
    "file_parts",
    metadata,
    sa.Column("name", sa.ForeignKey("files.name", ondelete="CASCADE"), primary_key=True),
    sa.Column("part", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("content", sa.LargeBinary, nullable=False),
)

schedules = sa.Table(
    "schedules",
    metadata,
    sa.Column("name", sa.String(64), primary_key=True),
    sa.Column("cron", sa.Text, nullable=False),
    sa.Column("time_zone", sa.Text, nullable=False),
    sa.Column("kind", sa.String(16), nullable=False),
    sa.Column("config", sa.JSON, nullable=False),
    sa.Column("missed", sa.String(16), nullable=False),
    sa.Column("overlap", sa.String(16), nullable=False),
    sa.Column("client", sa.Text, nullable=False),
    sa.Column("tags", sa.JSON, nullable=False),
    sa.Column("created_s", sa.Double, nullable=False),
    sa.Column("handled_s", sa.Double, nullable=False),
    sa.Column("paused", sa.Boolean, nullable=False),
    sa.Column("launching_s", sa.Double),
    sa.Column("claimed_s", sa.Double),
    sa.Column("note", sa.Text, nullable=False),
    sa.Column("error", sa.Text, nullable=False),
)

launches = sa.Table(
    "launches",
    metadata,
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("schedule", sa.ForeignKey("schedules.name", ondelete="CASCADE"), nullable=False),
    sa.Column("job", sa.String(64), nullable=False),
    sa.Index("launches_of_schedule", "schedule", "number"),
)


def upgrade(connection: sa.Connection) -> None:
    """Add to an older version's tables the columns that they lack."""
    known = sa.inspect(connection)
    for table in metadata.sorted_tables:
        there = {column["name"] for column in known.get_columns(table.name)}
        for column in table.columns:
            if column.name not in there:
                _add_column(connection, table, column)
                if column is jobs.c.last_step:
                    _count_steps(connection)


def _add_column(connection: sa.Connection, table: sa.Table, column: sa.Column[object]) -> None:
    # a column that is added cannot be unique by itself; the index makes it so
    words = [column.name, column.type.compile(connection.dialect)]
    if column.server_default is not None:
        words += ["NOT NULL DEFAULT", f"'{column.server_default.arg}'"]  # type: ignore[attr-defined]
    connection.execute(sa.text(f"ALTER TABLE {table.name} ADD COLUMN {' '.join(words)}"))
    if column.unique:
        name = f"ix_{table.name}_{column.name}"
        connection.execute(sa.text(f"CREATE UNIQUE INDEX {name} ON {table.name} ({column.name})"))


def _count_steps(connection: sa.Connection) -> None:
    last = sa.select(sa.func.max(metrics.c.step)).where(metrics.c.job_id == jobs.c.id)
    steps = sa.func.coalesce(last.scalar_subquery(), 0)
    connection.execute(sa.update(jobs).values(last_step=steps))
