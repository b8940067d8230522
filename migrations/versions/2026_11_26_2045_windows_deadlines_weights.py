"""When a job may run and when it ends, which share a team has, and until when a shard may be begun.

Indexes on `jobs` are built while that table can be read and not written. While old code runs: it makes jobs without a
window, dispatches those that have one at any time, and ends expired jobs as `cancelled`.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

STATES = "state IN ('accepted', 'running', 'finishing', 'completed', 'cancelled', {expired}'failed')"
BALANCE = "state NOT IN ('completed', 'cancelled'{expired}) OR num_results + num_failures + num_cancelled = num_items"
OPEN = "state IN ('accepted', 'running') AND cancel_requested_at IS NULL"
TURN = "state = 'running' AND paused_at IS NULL AND cancel_requested_at IS NULL"


def upgrade() -> None:
    op.add_column("jobs", sa.Column("run_window", sa.Text(), nullable=True))
    op.add_column("jobs", sa.Column("deadline_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("shards", sa.Column("closes_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("teams", sa.Column("weight", sa.BigInteger(), server_default=sa.text("1"), nullable=False))
    op.create_check_constraint(op.f("ck_teams_weight"), "teams", "weight BETWEEN 1 AND 1000")
    _check_states("'expired', ", ", 'expired'")
    turn = [sa.text(name) for name in ("model", "team_id", "priority DESC", "created_at", "id")]
    op.create_index("ix_jobs_turn", "jobs", turn, postgresql_where=sa.text(TURN))
    op.create_index("ix_jobs_deadline", "jobs", ["deadline_at"], postgresql_where=sa.text(OPEN))


def downgrade() -> None:
    op.drop_index("ix_jobs_deadline", table_name="jobs")
    op.drop_index("ix_jobs_turn", table_name="jobs")
    op.execute("UPDATE jobs SET state = 'cancelled' WHERE state = 'expired'")
    _check_states("", "")
    op.drop_constraint(op.f("ck_teams_weight"), "teams", type_="check")
    op.drop_column("teams", "weight")
    op.drop_column("shards", "closes_at")
    op.drop_column("jobs", "deadline_at")
    op.drop_column("jobs", "run_window")


def _check_states(state: str, ended: str) -> None:
    for name, condition in (
        ("state", STATES.format(expired=state)),
        ("every_item_ended_once", BALANCE.format(expired=ended)),
    ):
        op.drop_constraint(op.f(f"ck_jobs_{name}"), "jobs", type_="check")
        op.create_check_constraint(op.f(f"ck_jobs_{name}"), "jobs", condition)
