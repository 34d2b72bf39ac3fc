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
