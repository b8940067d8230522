"""What a team may have begun, compute in a day and keep in the store; what workers measured; which nights were told.

Indexes on `jobs` and `uploads` are built in the transaction that adds their columns, so until it ends nobody reads
these tables and `teams`: some seconds where there are hundreds of thousands of jobs. While old code runs: it knows no
quota, counts no day, measures no rate and no bytes, and tells no night's end.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

MOMENT = sa.DateTime(timezone=True)
RUNS_IN_WINDOW = "state = 'running' AND run_window IS NOT NULL"


def upgrade() -> None:
    for name in ("quota_in_flight", "quota_per_day", "quota_stored_bytes"):
        op.add_column("teams", sa.Column(name, sa.BigInteger(), nullable=True))
    op.add_column("teams", sa.Column("stored_at", MOMENT, nullable=True))
    op.add_column("uploads", sa.Column("writable_until", MOMENT, nullable=True))
    for table in ("teams", "uploads", "jobs"):
        op.add_column(table, sa.Column("stored_bytes", sa.BigInteger(), server_default=sa.text("0"), nullable=False))
    for table in ("uploads", "jobs"):  # the default is one moment for all rows that there are: nothing is rewritten
        op.add_column(table, sa.Column("measure_at", MOMENT, server_default=sa.text("now()"), nullable=True))
        set_ones = sa.text("measure_at IS NOT NULL")
        op.create_index(f"ix_{table}_measure", table, ["team_id", "measure_at"], postgresql_where=set_ones)
    op.add_column("jobs", sa.Column("reported_at", MOMENT, nullable=True))
    op.add_column("jobs", sa.Column("reported_items", sa.BigInteger(), server_default=sa.text("0"), nullable=False))
    op.create_index(
        "ix_jobs_in_windows", "jobs", ["run_window", "reported_at"], postgresql_where=sa.text(RUNS_IN_WINDOW)
    )
    op.create_table(
        "team_days",
        sa.Column("team_id", sa.Text(), nullable=False),
        sa.Column("day", sa.Date(), nullable=False),
        sa.Column("num_items", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["team_id"], ["teams.id"], name=op.f("fk_team_days_team_id")),
        sa.PrimaryKeyConstraint("team_id", "day", name=op.f("pk_team_days")),
    )
    op.create_table(
        "rates",
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("hour", MOMENT, nullable=False),
        sa.Column("worker_id", sa.Text(), nullable=False),
        sa.Column("num_items", sa.BigInteger(), nullable=False),
        sa.Column("work", sa.Float(), nullable=False),
        sa.Column("seconds", sa.Float(), nullable=False),
        sa.Column("last_at", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("model", "kind", "hour", "worker_id", name=op.f("pk_rates")),
    )
    op.create_index("ix_rates_hour", "rates", ["hour"])


def downgrade() -> None:
    op.drop_table("rates")
    op.drop_table("team_days")
    op.drop_index("ix_jobs_in_windows", table_name="jobs")
    for name in ("reported_items", "reported_at"):
        op.drop_column("jobs", name)
    for table in ("jobs", "uploads"):
        op.drop_index(f"ix_{table}_measure", table_name=table)
        op.drop_column(table, "measure_at")
    for table in ("jobs", "uploads", "teams"):
        op.drop_column(table, "stored_bytes")
    op.drop_column("uploads", "writable_until")
    for name in ("stored_at", "quota_stored_bytes", "quota_per_day", "quota_in_flight"):
        op.drop_column("teams", name)
